"""``--pd-gate FILE``: judge what this session recorded against earlier runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pd.errors import PdError

if TYPE_CHECKING:
    from pytest_pd.plugin.session import PdSession


PASSED = "passed"
WORSE = "worse"
NO_JUDGEMENT = "no judgement"


def gate_lines(session: PdSession, chosen: str) -> tuple[list[str], str]:
    """Return the lines to show, and ``passed``, ``worse`` or ``no judgement``.

    A gate that cannot judge (no such file, no figure) has failed: silence is never
    green.
    """
    from pytest_pd.report.gate import GateWord, judge, read_accepted, read_baseline
    from pytest_pd.report.read import read_run
    from pytest_pd.spec.gate import read_gate

    path = session.config.invocation_params.dir / Path(chosen).expanduser()
    try:
        gate = read_gate(path)
        record = read_run(session.run.dir)
        baseline = read_baseline(gate, path.parent, without=session.run.dir)
        accepted = read_accepted(gate, path.parent)
        result = judge(gate, record, baseline, accepted)
    except PdError as error:
        return [f"gate FAILED: {error}"], NO_JUDGEMENT
    lines = [*map(str, result.lines), result.summary()]
    if not result.failed:
        return lines, PASSED
    return lines, WORSE if result.of(GateWord.WORSE) else NO_JUDGEMENT
