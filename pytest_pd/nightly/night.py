"""One night from the list of tests to the exit code."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pytest_pd.errors import PdError, SpecError
from pytest_pd.nightly.book import RECORD, read_times, record_of, write_record
from pytest_pd.nightly.budget import Estimate, estimate
from pytest_pd.nightly.judgement import (
    CODES,
    Attempt,
    Judgement,
    Verdict,
    judge_night,
    to_retry,
)
from pytest_pd.nightly.launch import Listed, list_tests, run_tests
from pytest_pd.nightly.summary import summary, webhook_body
from pytest_pd.nightly.webhook import post
from pytest_pd.provision.rundir import make_run_id, run_path
from pytest_pd.report.redact import secrets_in
from pytest_pd.spec.quarantine import NOBODY, QuarantineSpec, read_quarantine

OURS = ("--junitxml", "--junit-xml", "--pd-run-dir", "--run-dir", "--collect-only")
"""Options of pytest that a night sets itself."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for.

    Attributes:
        words: Arguments of pytest.
        budget_s: No longer than this; None: computed from earlier nights.
        retries: How often tests that infrastructure broke are run again.
        nights, runs: Folders of the records and of the runs.
        webhook: Name of the variable that holds the address; empty for none.
        junit: Also write the merged JUnit file here.
    """

    words: tuple[str, ...]
    budget_s: float | None = None
    retries: int = 1
    quarantine: Path | None = None
    nights: Path = Path("nights")
    runs: Path = Path("runs")
    webhook: str = ""
    junit: Path | None = None


def spend(wishes: Wishes, say: Callable[[str], None]) -> int:
    """Run a night and return its exit code.

    Raises:
        SpecError: arguments, quarantine or webhook are wrong; nothing was started.
    """
    check_words(wishes.words)
    now = datetime.now(UTC)
    known = _quarantine(wishes.quarantine, now)
    address = webhook_address(wishes.webhook, os.environ)
    folder = run_path(wishes.nights, make_run_id(), now).absolute()
    folder.mkdir(parents=True)
    listed = list_tests(wishes.words, folder)
    expected = _expected(listed, wishes.nights)
    say(f"night: {expected}")
    if _is_too_long(expected, wishes.budget_s):
        say(f"night: over the budget of {wishes.budget_s:g} s: nothing was started")
        return CODES[Verdict.REFUSED]
    attempts = _attempts(wishes, folder, listed, expected, say)
    judgement = judge_night(attempts, known, listed.tests)
    write_record(folder / RECORD, record_of(judgement, attempts, wishes.words))
    text = summary(judgement, attempts, known)
    (folder / "summary.md").write_text(text, encoding="utf-8")
    for trouble in _tell(wishes, folder, judgement, address):
        say(f"night: {trouble}")
    say(f"\n{text}\nnight: {judgement.word}, exit code {judgement.exit_code}, {folder}")
    return judgement.exit_code


def check_words(words: Sequence[str]) -> None:
    """Refuse arguments that a night sets itself.

    Raises:
        SpecError: names the first.
    """
    for word in words:
        if word.partition("=")[0] in OURS:
            raise SpecError(
                f"A night sets {word.partition('=')[0]} itself.",
                hint="leave it out; --junit FILE and --runs DIR of pytest-pd nightly "
                "say where files go",
            )


def webhook_address(variable: str, environ: Mapping[str, str]) -> str:
    """Return the address that a variable holds; empty when none is wanted.

    Raises:
        SpecError: the variable is not set, or holds no http(s) address.
    """
    if not variable:
        return ""
    found = environ.get(variable, "")
    if not found.startswith(("https://", "http://")):
        raise SpecError(
            f"{variable} holds no web address.",
            hint="--webhook-env takes the NAME of a variable that does",
        )
    return found


def _quarantine(path: Path | None, now: datetime) -> QuarantineSpec:
    return read_quarantine(path, now.date()) if path else NOBODY


def _expected(listed: Listed, nights: Path) -> Estimate:
    return estimate(listed.tests, len(listed.topologies), read_times(nights))


def _is_too_long(expected: Estimate, budget_s: float | None) -> bool:
    known = budget_s is not None and expected.total_s is not None
    return known and expected.total_s > budget_s  # type: ignore[operator]


def _attempts(
    wishes: Wishes,
    folder: Path,
    listed: Listed,
    expected: Estimate,
    say: Callable[[str], None],
) -> list[Attempt]:
    """Run all, then again what infrastructure broke, while there is time."""
    left_s = wishes.budget_s or expected.limit_s
    if left_s is not None:
        say(f"night: ends after {left_s:.0f} s at the latest")
    made: list[Attempt] = []
    only: tuple[str, ...] = ()
    for number in range(1, wishes.retries + 2):
        attempt = run_tests(
            wishes.words,
            folder / f"attempt-{number}",
            wishes.runs.absolute() / f"{folder.name}-{number}",
            only=only,
            limit_s=left_s,
        )
        made.append(attempt)
        only = to_retry(attempt, only or listed.tests)
        left_s = None if left_s is None else left_s - attempt.wall_s
        out_of_time = attempt.cut or (left_s is not None and left_s <= 0)
        if not only or out_of_time or attempt.exit_code == CODES[Verdict.INTERRUPTED]:
            break
        if number <= wishes.retries:
            say(f"night: infrastructure broke {len(only)} test(s): once more")
    return made


def _tell(
    wishes: Wishes, folder: Path, judgement: Judgement, address: str
) -> list[str]:
    """Merge JUnit and tell the webhook; return what went wrong there."""
    told = []
    files = sorted(folder.glob("attempt-*/junit.xml"))
    for target in (folder / "junit.xml", wishes.junit):
        if target is None or not files:
            continue
        from pytest_pd.report.junit import merge_junit

        try:
            merge_junit(files, target)
        except PdError as error:
            told.append(error.fact)
    if address:
        body = webhook_body(judgement, folder.name, (address, *secrets_in(os.environ)))
        told.append(post(address, body))
    return [line for line in told if line]
