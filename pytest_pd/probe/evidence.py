"""Snapshots of what every service says about itself, and what changed between two."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from pytest_pd.errors import InfrastructureLost
from pytest_pd.plan.model import Endpoint
from pytest_pd.plan.seam import EvidenceNames
from pytest_pd.probe.http import request
from pytest_pd.probe.logs import read_text
from pytest_pd.probe.metrics import Page, increase, parse_page, was_reset
from pytest_pd.secret import redact

SCRAPE_TIMEOUT_S = 10.0
LOG_FIELDS = frozenset({"log_hit", "log_inject"})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All metric pages and log ends at one time.

    Attributes:
        begun_s, ended_s: Monotonic clock of the harness around the scrapes.
        pages: By service name; a service without a page is absent.
        texts: The pages as they came, for the run directory.
        failed: Service name to why its page could not be read.
        log_bytes: Service name to size of its log.
        logs: Service name to its log.
    """

    begun_s: float
    ended_s: float
    pages: Mapping[str, Page]
    texts: Mapping[str, str] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    log_bytes: Mapping[str, int] = field(default_factory=dict)
    logs: Mapping[str, Path] = field(default_factory=dict)

    def since(self, before: Snapshot) -> Delta:
        """Return what changed from `before` to this snapshot."""
        return Delta(before, self)


@dataclass(frozen=True, slots=True)
class WorkerEvidence:
    """Increase of each named counter of one worker; None: it does not say.

    Attributes:
        log_hit, log_inject: Number of new log lines that match; None when the
            engine has no such line.
        reset: The process was restarted inside the window; nothing holds then.
    """

    prompt_tokens: float | None = None
    computed_tokens: float | None = None
    generated_tokens: float | None = None
    external_tokens: float | None = None
    external_queries: float | None = None
    external_hits: float | None = None
    transferred_bytes: float | None = None
    transfer_seconds: float | None = None
    transfers: float | None = None
    transfer_failures: float | None = None
    local_hits: float | None = None
    requests: float | None = None
    log_hit: int | None = None
    log_inject: int | None = None
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Delta:
    """What the services did between two snapshots."""

    before: Snapshot
    after: Snapshot

    @property
    def seconds(self) -> float:
        """Length of the window, from the end of the first to that of the second."""
        return self.after.ended_s - self.before.ended_s

    def increase(self, service: str, query: str) -> float | None:
        """Return the growth of one counter of one service; None: it does not say."""
        before, after = self.before.pages.get(service), self.after.pages.get(service)
        if not query or before is None or after is None:
            return None
        return increase(before, after, query)

    def by_label(self, service: str, query: str, label: str) -> dict[str, float]:
        """Return the growth of a counter per value of one label, as routers have it."""
        before, after = self.before.pages.get(service), self.after.pages.get(service)
        if not query or before is None or after is None:
            return {}
        old = before.label_totals(query, label)
        new = after.label_totals(query, label)
        return {key: value - old.get(key, 0.0) for key, value in new.items()}

    def new_log(self, service: str) -> str:
        """Return what the log of a service has grown by."""
        log = self.after.logs.get(service)
        if log is None:
            return ""
        return read_text(log, offset=self.before.log_bytes.get(service, 0))

    def worker(self, service: str, names: EvidenceNames) -> WorkerEvidence:
        """Return every counter that an engine names, for one worker."""
        known = {item.name: getattr(names, item.name) for item in fields(names)}
        found: dict[str, Any] = {
            name: self._lines(service, query)
            if name in LOG_FIELDS
            else self.increase(service, query)
            for name, query in known.items()
        }
        return WorkerEvidence(**found, reset=self.was_reset(service, names))

    def was_reset(self, service: str, names: EvidenceNames) -> bool:
        """Whether a worker was restarted inside the window."""
        before, after = self.before.pages.get(service), self.after.pages.get(service)
        if before is None or after is None:
            return False
        queries = (names.prompt_tokens, names.generated_tokens, names.requests)
        return any(was_reset(before, after, query) for query in queries if query)

    def _lines(self, service: str, pattern: str) -> int | None:
        if not pattern:
            return None
        return len(re.findall(pattern, self.new_log(service)))


def take_snapshot(
    endpoints: Sequence[Endpoint],
    logs: Mapping[str, Path],
    *,
    timeout_s: float = SCRAPE_TIMEOUT_S,
) -> Snapshot:
    """Scrape every endpoint's page, side by side, and note the length of each log."""
    begun_s = time.monotonic()
    urls = {e.service: e.metrics_url for e in endpoints if e.metrics_url}
    sizes = {name: _size(path) for name, path in logs.items()}
    with ThreadPoolExecutor(min(16, len(urls)) or 1) as pool:
        scrape = partial(_scrape, timeout_s=timeout_s)
        answers = dict(zip(urls, pool.map(scrape, urls.values()), strict=True))
    texts = {name: text for name, (text, _) in answers.items() if text is not None}
    return Snapshot(
        begun_s,
        time.monotonic(),
        {name: parse_page(text) for name, text in texts.items()},
        texts,
        {name: why for name, (_, why) in answers.items() if why},
        sizes,
        dict(logs),
    )


def write_snapshot(
    snapshot: Snapshot, place: Callable[[str], Path], secrets: Sequence[str]
) -> None:
    """Write every page without secrets; for one that failed, why, as ``.failed``.

    Args:
        place: Service name to the file of its page.
    """
    for name, text in snapshot.texts.items():
        _write(place(name), redact(text, secrets))
    for name, why in snapshot.failed.items():
        _write(place(name).with_suffix(".failed"), redact(why, secrets) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _scrape(url: str, *, timeout_s: float) -> tuple[str | None, str]:
    try:
        answer = request(url, timeout_s=timeout_s)
    except InfrastructureLost as error:
        return None, error.fact
    return (answer.text, "") if answer.ok else (None, f"{url}: HTTP {answer.status}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
