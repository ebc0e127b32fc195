"""The word of a gate over one run, or over the attempts at one. I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pytest_pd.errors import MeasurementError, PdError
from pytest_pd.report.comparable import key_of_test
from pytest_pd.report.gate import GateWord, judge, read_accepted, read_baseline
from pytest_pd.report.read import RunRecord, read_run
from pytest_pd.spec.gate import read_gate

PASSED = "passed"
TOO_NOISY = "too noisy"
"""Every figure is; fails only where the gate file says so."""
WORSE = "worse"
NO_JUDGEMENT = "no judgement"


def gated(path: Path, runs: Sequence[Path]) -> tuple[list[str], str]:
    """Return the lines to show, and the gate's word.

    That is ``passed``, ``too noisy``, ``worse`` or ``no judgement``. A gate that
    cannot judge (no such file, no figure, whatever goes wrong) has failed: silence is
    never green.

    Args:
        path: Of the gate.
        runs: Folders of the attempts at one run, in order; not empty. None of them
            is a baseline.
    """
    try:
        gate = read_gate(path)
        record = joined(read_attempts(runs))
        baseline = read_baseline(gate, path.parent, without=runs)
        accepted = read_accepted(gate, path.parent)
        result = judge(gate, record, baseline, accepted)
    except PdError as error:
        return [f"gate FAILED: {error}"], NO_JUDGEMENT
    except Exception as error:  # one that breaks costs no run its other verdicts
        return [f"gate FAILED: {type(error).__name__}: {error}"], NO_JUDGEMENT
    lines = [*map(str, result.lines), result.summary()]
    if not result.failed:
        return lines, TOO_NOISY if result.is_blind else PASSED
    return lines, WORSE if result.of(GateWord.WORSE) else NO_JUDGEMENT


def read_attempts(runs: Sequence[Path]) -> list[RunRecord]:
    """Return what the attempts left; one that was killed early left no run.

    Raises:
        MeasurementError: none of them did.
    """
    found: list[RunRecord] = []
    trouble: MeasurementError | None = None
    for path in runs:
        try:
            found.append(read_run(path))
        except MeasurementError as error:
            trouble = error
    if trouble and not found:
        raise trouble
    return found


def joined(runs: Sequence[RunRecord]) -> RunRecord:
    """Return attempts as one run: of a test measured again the later figures count."""
    last = {
        key_of_test(entry): number
        for number, run in enumerate(runs)
        for entry in run.entries
    }
    topologies = tuple(
        replace(
            one, entries=tuple(e for e in one.entries if last[key_of_test(e)] == number)
        )
        for number, run in enumerate(runs)
        for one in run.topologies
    )
    return replace(runs[-1], topologies=topologies)
