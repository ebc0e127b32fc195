"""One run in a few kilobytes: what a history keeps when the run's folder is gone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.report.accept import accept
from pytest_pd.report.read import RunRecord
from pytest_pd.report.write import file_word
from pytest_pd.spec.baseline import BaselineFile, BaselineSpec

FORMAT = 1
SUFFIX = ".night.json"


@dataclass(frozen=True, slots=True)
class Night:
    """One run of a history.

    Attributes:
        at: Start, UTC, ISO 8601; orders the nights.
        word: Verdict of the run.
        versions: Commit, packages, image of each role: what may explain a change.
    """

    run_id: str
    at: str
    word: str
    versions: Mapping[str, str]
    specs: tuple[BaselineSpec, ...] = field(repr=False)

    @property
    def file_name(self) -> str:
        stamp = self.at.replace("-", "").replace(":", "")
        return f"{file_word(stamp)}-{file_word(self.run_id)}{SUFFIX}"


def night_of(run: RunRecord) -> Night:
    """Return the night of a run; a run without any figure that holds has none in it."""
    try:
        specs = accept(BaselineFile(), [run], gate=None, told={}).baselines
    except MeasurementError:
        specs = ()
    return Night(run.run_id, _start(run), run.word, _versions(run), specs)


def _start(run: RunRecord) -> str:
    begun = [t.manifest.get("created_s") for t in run.topologies]
    known = [float(second) for second in begun if second]
    if known:
        return datetime.fromtimestamp(min(known), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    stamp = run.path.name.partition("-")[0]
    try:
        moment = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return stamp
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _versions(run: RunRecord) -> dict[str, str]:
    found: dict[str, str] = {}
    for topology in run.topologies:
        for service in topology.plan.get("services", ()):
            if service.get("image"):
                found[f"image of {service.get('role')}"] = str(service["image"])
        for entry in topology.entries[:1]:
            found["commit"] = str(entry.info.get("git_sha", ""))
            versions = entry.info.get("versions") or {}
            found |= {str(name): str(value) for name, value in versions.items()}
    return found


def night_text(night: Night) -> str:
    """Return a night as JSON."""
    data = {
        "format": FORMAT,
        "run_id": night.run_id,
        "at": night.at,
        "verdict": night.word,
        "versions": dict(night.versions),
        "baselines": [spec.model_dump(mode="json") for spec in night.specs],
    }
    return json.dumps(data, indent=1) + "\n"


def read_night(text: str, name: str) -> Night:
    """Read what `night_text` wrote.

    Raises:
        MeasurementError: the text is no night.
    """
    try:
        data: Mapping[str, Any] = json.loads(text)
        return Night(
            str(data["run_id"]),
            str(data["at"]),
            str(data["verdict"]),
            {str(k): str(v) for k, v in data["versions"].items()},
            tuple(BaselineSpec.model_validate(spec) for spec in data["baselines"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MeasurementError(
            f"{name!r} is no night of a history.",
            hint="write it again with pytest-pd history STORE --add DIR",
        ) from error
