"""What a run keeps while it goes, so that a killed one can still be read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_pd.report.outcome import OUTCOMES_FILE, TestOutcome
from pytest_pd.report.provenance import environment, git_commit, provenance
from pytest_pd.secret import redact_all

if TYPE_CHECKING:
    from pytest_pd.plugin.session import PdSession
    from pytest_pd.provision.deployment import Deployment

ENTRIES_FILE = "entries.jsonl"
NO_TOPOLOGY = "no-topology"
"""Folder of what tests without a topology recorded."""


def folder_of(session: PdSession, topology_id: str) -> Path:
    """Return the folder of one topology in this run, made if it is not there."""
    folder = session.run.dir / topology_id
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep_environment(session: PdSession, topology_id: str) -> None:
    """Write ``environment.json``: versions, host, variables with secrets masked.

    It is for its owner alone: nobody knows every name that a secret can have.
    """
    found = redact_all(environment(os.environ), session.secrets)
    path = folder_of(session, topology_id) / "environment.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(found, indent=1))


def keep_entries(
    session: PdSession, topology_id: str, entries: Iterable[Mapping[str, Any]]
) -> None:
    """Append finished entries, one JSON object a line, and bring them to disk."""
    path = folder_of(session, topology_id) / ENTRIES_FILE
    lines = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    # written at once: workers of xdist share the folder of tests without a topology
    with path.open("ab", buffering=len(lines) + 1) as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def keep_outcomes(session: PdSession, outcomes: list[TestOutcome]) -> None:
    """Append outcomes to the run's ``results.jsonl`` and empty the list.

    They stay in the list for as long as nothing has made the run's folder.
    """
    if not outcomes or not session.run.dir.is_dir():
        return
    records = redact_all([each.as_record() for each in outcomes], session.secrets)
    lines = [json.dumps(record) + "\n" for record in records]
    with (session.run.dir / OUTCOMES_FILE).open("a", encoding="utf-8") as file:
        file.writelines(lines)
    outcomes.clear()


def provenance_of(session: PdSession, deployment: Deployment) -> dict[str, Any]:
    """Return what is stored beside every figure, with what other plugins add."""
    config = session.config
    info = provenance(
        deployment.plan,
        run_id=session.run.id,
        label=config.getoption("pd_label") or "",
        commit=git_commit(config.rootpath),
    )
    config.hook.pytest_pd_provenance(config=config, deployment=deployment, info=info)
    return info
