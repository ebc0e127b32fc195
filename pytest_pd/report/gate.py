"""Judge one run against its baseline. Reads runs; the judgement itself is pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.pool import Assumed, pooled
from pytest_pd.measure.ratio import (
    Ratio,
    Run,
    Summary,
    comparison,
    has_ratio,
    summarised,
)
from pytest_pd.report.comparable import (
    Key,
    Places,
    identity,
    load_of,
    loads_of,
    measured_tests,
    name_of_test,
    other_load,
)
from pytest_pd.report.compare import default_statistic
from pytest_pd.report.read import Entry, RunRecord, is_topology, overlap, read_run
from pytest_pd.spec.baseline import BaselineSpec, read_baselines
from pytest_pd.spec.gate import GateSpec

PASS_TAIL = 0.05
"""Chance, by metric, that what is over its limit passes."""


class GateWord(StrEnum):
    """Outcome of one figure."""

    WORSE = "worse"
    TOO_NOISY = "too noisy"
    NO_FIGURE = "no figure"
    NO_BASELINE = "no baseline"
    PASSED = "passed"


Known = Mapping[Key, Sequence[tuple[Mapping[str, Any], Run]]]
"""What is compared to the baseline runs of it, each with its load."""
MISSING = frozenset((GateWord.NO_FIGURE, GateWord.NO_BASELINE))
NOTHING_JUDGED = (
    "nothing was judged: no figure of the baseline is of the same test, load and "
    "set-up; look at its patterns, or accept this run with pytest-pd accept-baseline"
)
FIRST_RUN = "this is the first run that its baseline names"
OTHER_LOAD = (
    "{} without a baseline only because the load is another one: not judged; "
    "fail_on_missing: true fails here"
)
ALL_NOISY = (
    "nothing passed: the figures scatter too much, or the baseline runs are too few; "
    "fail_on_noise: true fails here"
)
WORSE_IS_NO_BASELINE = (
    "it is no baseline of later runs; if it is right as it is, "
    "pytest-pd accept-baseline --force"
)


@dataclass(frozen=True, slots=True)
class GateLine:
    """Judgement of one figure.

    Attributes:
        ratio: None without a baseline.
        left: What of the baseline was left out, and why; empty for nothing.
    """

    name: str
    word: GateWord
    limit: float
    ratio: Ratio | None = None
    left: str = ""

    def __str__(self) -> str:
        left = f"; {self.left}" if self.left else ""
        if self.ratio is None:
            return f"{self.word}: {self.name}{left}"
        r = self.ratio
        return (
            f"{self.word}: {self.name} is {r.value:.3f} of {r.old_runs} baseline "
            f"run(s), limit {1 + self.limit:.3f}, at least {r.low:.3f}, "
            f"at most {r.high:.3f}{left}"
        )


@dataclass(frozen=True, slots=True)
class GateResult:
    """All judgements, and whether they let the run pass."""

    lines: tuple[GateLine, ...]
    failed: bool

    def of(self, word: GateWord) -> tuple[GateLine, ...]:
        return tuple(line for line in self.lines if line.word is word)

    def summary(self) -> str:
        """Return the counts in words, and what a reader has to know of them."""
        counts = {word: len(self.of(word)) for word in GateWord}
        told = ", ".join(f"{n} {word.value}" for word, n in counts.items() if n)
        head = "cannot tell" if self.is_blind else "passed"
        found = f"gate {'FAILED' if self.failed else head}: {told or 'no figure'}"
        if counts[GateWord.WORSE]:
            return f"{found}; {WORSE_IS_NO_BASELINE}"
        if self.is_blind:
            return found if self.failed else f"{found}; {ALL_NOISY}"
        if counts[GateWord.PASSED]:
            others = sum(bool(line.left) for line in self.of(GateWord.NO_BASELINE))
            return f"{found}; {OTHER_LOAD.format(others)}" if others else found
        return f"{found}; {NOTHING_JUDGED if self.failed else FIRST_RUN}"

    @property
    def is_blind(self) -> bool:
        """True when figures were compared and of none it can be told how it is."""
        words = {line.word for line in self.lines} - MISSING
        return words == {GateWord.TOO_NOISY}


def read_baseline(
    gate: GateSpec, folder: Path, *, without: Iterable[Path]
) -> list[RunRecord]:
    """Return the baseline runs, the run under judgement left out.

    For each test that the run under judgement measured they have the figures of the
    newest `keep` runs of the same set-up and load, however many others are newer.

    A run that ``--pd-gate`` called worse is left out of what a glob names: a slow-down
    would become its own baseline. Named in full it counts. A run without figures is no
    baseline and takes no place.

    Args:
        folder: That relative patterns start from.
        without: Folders of the run that is judged, or of topologies of it: no baseline
            for itself.

    Raises:
        MeasurementError: the gate names no run and no file of accepted figures, all
            that have figures were worse, or a pattern matches something that is no
            run.
    """
    words = [word for word in gate.baseline if not is_accepted(word)]
    patterns = [str(folder / Path(word).expanduser()) for word in words]
    paths = {Path(p) for pattern in patterns for p in glob(pattern)}  # noqa: PTH207
    named = [path for path in paths if path.is_dir()]
    if not named and len(words) == len(gate.baseline):
        raise MeasurementError(
            f"The gate's baseline {', '.join(map(repr, words))} names no run, not even "
            "the one to judge.",
            hint=f"write it relative to {folder}, or name a file that "
            "pytest-pd accept-baseline wrote",
        )
    own = tuple(without)
    found = [path for path in named if not any(overlap(path, one) for one in own)]
    meant = {Path(pattern) for pattern in patterns if not has_magic(pattern)}
    places = Places(gate.keep, loads_of(_entries_in(own)))
    kept: list[RunRecord] = []
    worse = 0
    for path in sorted(found, key=_run_name, reverse=True):
        if places.are_taken:
            break
        run = read_run(path)
        if run.entries and run.gate == GateWord.WORSE and path not in meant:
            worse += 1
        elif run.entries:
            kept.append(places.taken_by(run))
    if worse and not kept and len(words) == len(gate.baseline):
        raise MeasurementError(
            f"All {worse} runs of the gate's baseline that measured something were "
            "worse than others.",
            hint="accept what is right with pytest-pd accept-baseline --force",
        )
    return kept[::-1]


def _entries_in(folders: Iterable[Path]) -> Iterator[Entry]:
    for folder in folders:
        with suppress(MeasurementError):  # an attempt that was killed left no run
            yield from read_run(folder).entries


def _run_name(path: Path) -> str:
    """Return the name of the run's folder, which begins with its time."""
    return path.resolve().parent.name if is_topology(path) else path.name


def is_accepted(word: str) -> bool:
    """Tell whether a word of `baseline` names a file of accepted figures."""
    return Path(word).suffix in (".yaml", ".yml")


def read_accepted(gate: GateSpec, folder: Path) -> list[BaselineSpec]:
    """Return what the gate's files of accepted figures hold.

    Raises:
        SpecError: a file is not there, or what is wrong in it.
    """
    words = [word for word in gate.baseline if is_accepted(word)]
    files = [read_baselines(folder / Path(word).expanduser()) for word in words]
    return [spec for file in files for spec in file.baselines]


def judge(
    gate: GateSpec,
    run: RunRecord,
    baseline: Sequence[RunRecord],
    accepted: Sequence[BaselineSpec] = (),
) -> GateResult:
    """Judge every figure of `run` that the gate has a limit for.

    A figure fails when it is over its limit and slower beyond doubt, the chance of a
    false alarm shared by all figures; it passes when a value over the limit would
    have been seen; everything else is too noisy to tell. One that every baseline run of
    its test has, and this run has not though it measured that test, is worse. Where
    nothing at all can be judged the gate fails, unless the run is the first that the
    gate's patterns name.

    Raises:
        MeasurementError: the run has no valid figure that the gate judges.
    """
    known = _known(gate, baseline, accepted)
    entries = [entry for entry in run.entries if _is_usable(gate, entry)]
    unjudged = _unjudged(gate, run, entries, known)
    if not entries and GateWord.WORSE not in {line.word for line in unjudged}:
        raise MeasurementError(
            f"Run {run.run_id!r} has no valid figure of {', '.join(gate.metrics)}.",
            hint="a gate that judges nothing lets everything pass",
        )
    held = [_held(gate, entry, known) for entry in entries]
    olds = [old for old, _ in held]
    share = gate.alpha / max(1, sum(map(bool, olds)))
    lines = tuple(
        replace(_judge(gate, entry, old, share, assumed), left=left)
        for entry, (old, left), assumed in zip(
            entries, held, _assumed(gate, olds), strict=True
        )
    )
    lines += unjudged
    words = {line.word for line in lines}
    failed = (
        GateWord.WORSE in words
        or (gate.fail_on_noise and GateWord.TOO_NOISY in words)
        or (gate.fail_on_missing and not words.isdisjoint(MISSING))
        or (words <= MISSING and not _is_first(gate, baseline))
    )
    return GateResult(tuple(sorted(lines, key=_rank)), failed)


def _is_first(gate: GateSpec, baseline: Sequence[RunRecord]) -> bool:
    """Tell whether there can be no baseline yet: patterns name the run itself only."""
    return not baseline and not any(map(is_accepted, gate.baseline))


def _held(gate: GateSpec, entry: Entry, known: Known) -> tuple[list[Summary], str]:
    """Return what an entry is held against, and what was under another load."""
    load, statistic = load_of(entry), _statistic(gate, entry.metric)
    found: list[Summary] = []
    others: list[str] = []
    for old_load, run in known.get(identity(entry), ()):
        if told := other_load(old_load, load):
            others.append(told)
        else:
            found.append(summarised(run, statistic))
    if not others:
        return found, ""
    return found, f"{len(others)} baseline run(s) under another load: {others[-1]}"


def _assumed(gate: GateSpec, olds: Sequence[Sequence[Summary]]) -> list[Assumed]:
    """Return the scatter to assume for each entry, learned from all of them."""
    logs = [[math.log(figure.value) for figure in old] for old in olds]
    errors = [[figure.error for figure in old] for old in olds]
    return pooled(logs, errors, gate.jitter)


def _judge(
    gate: GateSpec,
    entry: Entry,
    old: Sequence[Summary],
    share: float,
    assumed: Assumed,
) -> GateLine:
    spec = gate.metrics[entry.metric]
    limit, name = spec.max_increase, entry.fullname.removeprefix("pd::")
    if not old:
        return GateLine(name, GateWord.NO_BASELINE, limit)

    found = comparison(
        old,
        [entry.samples],
        statistic=_statistic(gate, entry.metric),
        jitter=assumed.jitter,
        weight=assumed.weight,
    )
    strict, usual = found.ratio(1 - 2 * share), found.ratio(1 - 2 * PASS_TAIL)
    if strict.low > 1 and strict.value > 1 + limit:
        return GateLine(name, GateWord.WORSE, limit, strict)
    word = GateWord.PASSED if usual.high < 1 + limit else GateWord.TOO_NOISY
    return GateLine(name, word, limit, usual)


def _unjudged(
    gate: GateSpec,
    run: RunRecord,
    judged: Sequence[Entry],
    known: Known,
) -> tuple[GateLine, ...]:
    """Return a line for all that has a limit and no figure to hold against it."""
    left = [e for e in run.entries if e.metric in gate.metrics and e not in judged]
    found = [(entry.fullname, entry.metric, "") for entry in left]
    present = {identity(entry) for entry in run.entries}
    set_ups = {key[1:] for key in present}
    lost = [key for key in known if key not in present and key[1:] in set_ups]
    measured = measured_tests(run)
    found += [
        (key[0], key[0].rpartition("::")[2], _gone(key, known, measured))
        for key in lost
    ]
    told = {entry.metric for entry in run.entries} | {metric for _, metric, _ in found}
    found += [(metric, metric, "") for metric in gate.metrics if metric not in told]
    return tuple(
        GateLine(
            name.removeprefix("pd::"),
            GateWord.WORSE if gone else GateWord.NO_FIGURE,
            gate.metrics[metric].max_increase,
            left=gone,
        )
        for name, metric, gone in found
    )


def _gone(key: Key, known: Known, measured: Mapping[Key, Mapping[str, Any]]) -> str:
    """Return why a figure that the run lacks is worse; empty where it was not due.

    One that some baseline runs of its test lack as well comes and goes by itself.
    """
    test = (name_of_test(key[0]), *key[1:])
    if test not in measured:
        return ""
    runs = {
        other: sum(not other_load(load, measured[test]) for load, _ in old)
        for other, old in known.items()
        if (name_of_test(other[0]), *other[1:]) == test
    }
    if not runs[key] or runs[key] < max(runs.values()):
        return ""
    return (
        f"missing now: {runs[key]} baseline run(s) have it, and its test was measured "
        "without it"
    )


def _known(
    gate: GateSpec, baseline: Sequence[RunRecord], accepted: Sequence[BaselineSpec]
) -> Known:
    found: dict[Key, list[tuple[Mapping[str, Any], Run]]] = {}
    for run in baseline:
        for entry in run.entries:
            if _is_usable(gate, entry):
                one = (load_of(entry), entry.samples)
                found.setdefault(identity(entry), []).append(one)
    for spec in accepted:
        for name, figures in spec.figures.items():
            metric = name.rpartition("::")[2]
            figure = metric in gate.metrics and figures.get(_statistic(gate, metric))
            if figure:
                load = spec.loads.get(name.rpartition("::")[0], {})
                summaries = map(Summary, figure.values, figure.errors)
                runs = [(load, summary) for summary in summaries]
                found.setdefault((f"pd::{name}", *spec.key), []).extend(runs)
    return found


def _is_usable(gate: GateSpec, entry: Entry) -> bool:
    if entry.metric not in gate.metrics or not entry.is_valid:
        return False
    return has_ratio(entry.samples, _statistic(gate, entry.metric))


def _statistic(gate: GateSpec, metric: str) -> str:
    return gate.metrics[metric].statistic or default_statistic(metric)


def _rank(line: GateLine) -> tuple[int, str]:
    return list(GateWord).index(line.word), line.name
