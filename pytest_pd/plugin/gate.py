"""``--pd-gate FILE``: judge what this session recorded against earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pd.errors import PdError

if TYPE_CHECKING:
    from pytest_pd.plugin.session import PdSession


def gate_lines(session: PdSession, chosen: str) -> tuple[list[str], bool]:
    """Return the lines to show, and whether the gate failed.

    A gate that cannot judge (no such file, no figure) has failed: silence is never
    green.
    """
    from pytest_pd.report.gate import judge, read_baseline
    from pytest_pd.report.read import read_run
    from pytest_pd.spec.gate import read_gate

    path = session.config.invocation_params.dir / Path(chosen).expanduser()
    try:
        gate = read_gate(path)
        record = read_run(session.run.dir)
        baseline = read_baseline(gate, path.parent, without=session.run.dir)
        result = judge(gate, record, baseline)
    except PdError as error:
        return [f"gate FAILED: {error}"], True
    return [*map(str, result.lines), result.summary()], result.failed
