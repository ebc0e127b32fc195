"""Who this run is: id and folder, fixed once by the controller for all workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WORKER_KEY = "pd_run"
LEFT_BY_A_RUN = ("verdict.json", "results.jsonl", "*/manifest.json")


@dataclass(frozen=True, slots=True)
class Run:
    """Identity of one session, the same in every xdist worker.

    Attributes:
        dir: Absolute path of the run directory; made on first use.
        worker: xdist worker id, ``main`` without xdist.
    """

    id: str
    dir: Path
    worker: str

    def as_input(self) -> dict[str, str]:
        """Plain values for a worker's ``workerinput``."""
        return {"id": self.id, "dir": str(self.dir)}


def refuse_used(folder: Path) -> None:
    """Refuse a folder that holds an earlier run, before anything is written there.

    Raises:
        pytest.UsageError: it does; names what was found.
    """
    for pattern in LEFT_BY_A_RUN:
        if found := next(folder.glob(pattern), None):
            raise pytest.UsageError(
                f"{str(folder)!r} holds an earlier run: {found.relative_to(folder)}.\n"
                "  try: another folder with --run-dir; nothing is overwritten"
            )


def make_run(config: pytest.Config) -> Run:
    """Return the run of this process: the controller's, or a new one.

    Raises:
        SpecError: ``--run-dir`` begins with a home folder that is not known.
    """
    given: dict[str, Any] = getattr(config, "workerinput", {})
    if WORKER_KEY in given:
        fixed = given[WORKER_KEY]
        return Run(fixed["id"], Path(fixed["dir"]), given["workerid"])
    from pytest_pd.provision.rundir import make_run_id, run_path
    from pytest_pd.user import expand

    run_id = make_run_id()
    chosen = config.getoption("pd_run_dir")
    folder = expand(chosen) if chosen else run_path(Path("runs"), run_id)
    return Run(run_id, (config.invocation_params.dir / folder).absolute(), "main")
