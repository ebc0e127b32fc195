"""What a night says: one verdict, one layer, one exit code. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pytest_pd.report.outcome import BAD, GREEN, TestOutcome, settled
from pytest_pd.spec.quarantine import QuarantineSpec

LAYERS = ("infra", "provision", "server", "client", "accuracy", "performance")
"""Units digit of the exit code: 1 for infra to 6 for performance."""
TELLING = ("server", "accuracy", "performance", "client", "provision", "infra")
"""Which layer names the night: what was found before what kept us from looking."""
INTERRUPTED = 130


class Verdict(StrEnum):
    """One word for a night."""

    PASSED = "passed"
    FAILED = "failed"
    INVALID = "invalid"
    QUARANTINED = "quarantined"
    SILENT = "no verdict"
    UNSTARTED = "not started"
    REFUSED = "over budget"
    CUT = "out of time"
    INTERRUPTED = "interrupted"


CODES = {
    Verdict.PASSED: 0,
    Verdict.FAILED: 10,
    Verdict.INVALID: 20,
    Verdict.QUARANTINED: 30,
    Verdict.UNSTARTED: 2,
    Verdict.SILENT: 31,
    Verdict.REFUSED: 32,
    Verdict.CUT: 33,
    Verdict.INTERRUPTED: INTERRUPTED,
}
"""Exit codes; failed and invalid add the layer: 15 is failed, accuracy."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call of pytest.

    Attributes:
        exit_code: Of pytest; negative: the signal that ended it.
        wall_s: Seconds it took.
        outcomes: One a test.
        silent: Topologies that had to reach a verdict and did not.
        gate: A word of `GATE_WORDS`; empty without a gate.
        gate_lines: What the gate said: a line a figure, then its summary.
        gate_file: Which gate that was.
        run_dir: Where it kept the run.
        cut: True when the budget was over before pytest was.
        queued_s: Seconds of these that topologies waited for their machines.
    """

    exit_code: int
    wall_s: float
    outcomes: tuple[TestOutcome, ...]
    silent: tuple[str, ...] = ()
    gate: str = ""
    gate_lines: tuple[str, ...] = ()
    gate_file: str = ""
    run_dir: str = ""
    cut: bool = False
    queued_s: float = 0.0


GATE_WORDS = ("", "passed", "too noisy", "no judgement", "worse")
"""Words of gates, worst last; from ``no judgement`` on they fail."""


@dataclass(frozen=True, slots=True)
class Gated:
    """What the gate said of all attempts together; a word of `GATE_WORDS`."""

    word: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the attempts of a night come to.

    Attributes:
        outcomes: The last result of each test.
        bad: Not green, and in nobody's quarantine.
        quarantined: Not green, and known to be so.
        flaky: Green at last after infrastructure broke them, with the first reason.
        notes: What else a reader has to know, one line each.
        gate: The gate's summary, and what it did not pass.
        missing: Tests that no attempt has a result of; one that was skipped for want
            of time has none.
    """

    verdict: Verdict
    layer: str
    outcomes: tuple[TestOutcome, ...]
    bad: tuple[TestOutcome, ...]
    quarantined: tuple[TestOutcome, ...]
    flaky: Mapping[str, str]
    notes: tuple[str, ...] = ()
    gate: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        code = CODES[self.verdict]
        return code + LAYERS.index(self.layer) + 1 if self.layer else code

    @property
    def word(self) -> str:
        """Return ``failed (accuracy)``, ``passed``, ..."""
        return f"{self.verdict} ({self.layer})" if self.layer else str(self.verdict)


def judge_night(
    attempts: Sequence[Attempt],
    known: QuarantineSpec,
    listed: Sequence[str] = (),
    gate: Gated | None = None,
) -> Judgement:
    """Judge all attempts together; of several results of a test the last counts.

    Args:
        listed: Ids of the tests that the night was to run: without a result of each
            it is never green.
        gate: Of all attempts together; absent: the worst that one of them was told.

    A quarantined test that is not green is told apart and makes the night neither
    green nor red. Infrastructure is nobody's content: it is never quarantined.
    """
    ends = final(attempts)
    last = [outcome for outcome in ends if not outcome.was_not_run]
    unlucky = [outcome for outcome in last if outcome.verdict not in GREEN]
    quarantined = tuple(o for o in unlucky if is_quarantined(o, known))
    bad = tuple(o for o in unlucky if o not in quarantined)
    told = {outcome.nodeid for outcome in last}
    wanted = dict.fromkeys((*listed, *(outcome.nodeid for outcome in ends)))
    missing = tuple(nodeid for nodeid in wanted if nodeid not in told)
    gate = gate or worst_gate(attempts)
    verdict, layer = _verdict(attempts, last, bad, quarantined, missing, gate)
    return Judgement(
        verdict=verdict,
        layer=layer,
        outcomes=tuple(last),
        bad=bad,
        quarantined=quarantined,
        flaky=flaky_of(attempts),
        notes=tuple(_notes(attempts, last, known, missing)),
        gate=_gate_lines(gate),
        missing=missing,
    )


def nothing_run(verdict: Verdict, why: str) -> Judgement:
    """Return the judgement of a night that never called pytest."""
    return Judgement(verdict, "", (), (), (), {}, notes=(why,))


def worst_gate(attempts: Sequence[Attempt]) -> Gated:
    """Return what the gate said of the attempt that it liked least."""
    worst = max(attempts, key=lambda attempt: GATE_WORDS.index(attempt.gate))
    return Gated(worst.gate, worst.gate_lines)


def _gate_lines(gate: Gated) -> tuple[str, ...]:
    """Return the gate's summary, and what it did not pass."""
    told = [line for line in gate.lines[:-1] if not line.startswith("passed:")]
    return (*gate.lines[-1:], *told)


def is_quarantined(outcome: TestOutcome, known: QuarantineSpec) -> bool:
    """Tell whether somebody has said that this test fails for now."""
    return outcome.layer != "infra" and known.of(outcome.nodeid) is not None


def final(attempts: Iterable[Attempt]) -> list[TestOutcome]:
    """Return the last result of each test, in the order of their first.

    A test for which a later attempt had no time keeps the result that it had.
    """
    found: dict[str, TestOutcome] = {}
    for attempt in attempts:
        for outcome in settled(attempt.outcomes):
            if not (outcome.was_not_run and outcome.nodeid in found):
                found[outcome.nodeid] = outcome
    return list(found.values())


def to_retry(attempt: Attempt, expected: Sequence[str]) -> tuple[str, ...]:
    """Return the tests to run again: those that infrastructure broke, no others.

    Args:
        expected: Ids of the tests that the attempt was to run.

    A pytest that a signal ended left tests without a result: those too.
    """
    told = settled(attempt.outcomes)
    broken = {o.nodeid for o in told if o.layer == "infra" and o.verdict in BAD}
    if attempt.exit_code < 0 and not attempt.cut:
        broken |= set(expected) - {o.nodeid for o in told}
    return tuple(nodeid for nodeid in expected if nodeid in broken)


def tells_time(attempt: Attempt) -> bool:
    """Tell whether an attempt shows how long its tests take.

    Not where it was ended, where a job had no time left, or where topologies did not
    come up or were lost: then most of the work was never done.
    """
    whole = not attempt.cut and attempt.exit_code in (0, 1) and not attempt.silent
    return whole and not any(
        o.verdict == "blocked"
        or o.was_not_run
        or (o.layer == "infra" and o.verdict in BAD)
        for o in attempt.outcomes
    )


def flaky_of(attempts: Sequence[Attempt]) -> dict[str, str]:
    """Return tests that are green at last, with why they were not at first."""
    first: dict[str, str] = {}
    for attempt in attempts:
        for o in settled(attempt.outcomes):
            if o.verdict in BAD:
                first.setdefault(o.nodeid, o.reason)
    green = {o.nodeid for o in final(attempts) if o.verdict == "passed"}
    return {nodeid: reason for nodeid, reason in first.items() if nodeid in green}


def _verdict(
    attempts: Sequence[Attempt],
    last: Sequence[TestOutcome],
    bad: Sequence[TestOutcome],
    quarantined: Sequence[TestOutcome],
    missing: Sequence[str],
    gate: Gated,
) -> tuple[Verdict, str]:
    if attempts[-1].exit_code == INTERRUPTED:
        return Verdict.INTERRUPTED, ""
    failed = [o.layer for o in bad if o.verdict != "invalid"]
    if gate.word == "worse":
        failed.append("performance")
    if failed:
        return Verdict.FAILED, leading(failed)
    if bad:
        return Verdict.INVALID, leading([o.layer for o in bad])
    if any(attempt.cut for attempt in attempts):
        return Verdict.CUT, ""
    if gate.word == "no judgement":
        return Verdict.INVALID, "performance"
    return _without_a_bad_test(attempts, last, quarantined, missing)


def _without_a_bad_test(
    attempts: Sequence[Attempt],
    last: Sequence[TestOutcome],
    quarantined: Sequence[TestOutcome],
    missing: Sequence[str],
) -> tuple[Verdict, str]:
    if attempts[-1].exit_code < 0:
        return Verdict.FAILED, "infra"
    if any(map(_is_unexplained, attempts)):
        return Verdict.FAILED, "client"
    if quarantined and not missing:
        return Verdict.QUARANTINED, ""
    green = any(outcome.verdict == "passed" for outcome in last)
    if missing or _still_silent(attempts, last) or not green:
        return Verdict.SILENT, ""
    return Verdict.PASSED, ""


def _is_unexplained(attempt: Attempt) -> bool:
    """Tell whether pytest was not content, and nothing that it found says why."""
    if attempt.exit_code in (3, 4):
        return True
    bad = any(o.verdict not in GREEN for o in settled(attempt.outcomes))
    gated = attempt.gate in ("no judgement", "worse")
    return attempt.exit_code > 0 and not (bad or attempt.silent or gated)


def leading(layers: Iterable[str]) -> str:
    """Return the layer that names the night."""
    found = set(layers)
    return next((layer for layer in TELLING if layer in found), "client")


def _still_silent(
    attempts: Sequence[Attempt], last: Iterable[TestOutcome]
) -> tuple[str, ...]:
    spoke = {o.topology for o in last if o.verdict in ("passed", "failed", "invalid")}
    # a pytest that was killed names none: those of later attempts count as well
    silent = dict.fromkeys(name for attempt in attempts for name in attempt.silent)
    return tuple(name for name in silent if name not in spoke)


def _notes(
    attempts: Sequence[Attempt],
    last: Sequence[TestOutcome],
    known: QuarantineSpec,
    missing: Sequence[str],
) -> Iterable[str]:
    if missing:
        yield f"{len(missing)} listed test(s) have no result, the first: {missing[0]}"
    if late := [o for o in final(attempts) if o.was_not_run]:
        yield f"{len(late)} of them {late[0].reason}"
    for name in _still_silent(attempts, last):
        yield f"topology {name!r} reached no verdict"
    for attempt in attempts:
        if attempt.cut:
            yield f"ended by the time budget after {attempt.wall_s:.0f} s"
    ids = {*missing, *(o.nodeid for o in last)}
    for one in known.unused(ids):
        yield f"quarantine of {one.test!r} ({one.owner}) means no test of this night"
    green = [o.nodeid for o in last if o.verdict == "passed"]
    for one in known.quarantine:
        if means := [nodeid for nodeid in green if one.holds(nodeid)]:
            yield (
                f"{len(means)} test(s) of quarantine {one.test!r} ({one.owner}) "
                "passed: remove the entry"
            )
