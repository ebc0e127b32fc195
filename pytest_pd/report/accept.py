"""Accept runs as the baseline of their set-up, as text that can be reviewed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import yaml

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.ratio import has_ratio, relative_error, statistic_of
from pytest_pd.report.comparable import load_of, other_load
from pytest_pd.report.compare import default_statistic
from pytest_pd.report.read import Entry, RunRecord
from pytest_pd.spec.baseline import BaselineFile, BaselineSpec, FigureSpec
from pytest_pd.spec.gate import GateSpec

HEAD = """\
# Accepted baselines, written by pytest-pd accept-baseline: what later runs are held
# against. Review the figures as code; name this file under `baseline` of a gate file.
"""
TAIL_SAMPLES = 100
"""Samples from which a p99 is kept as well."""
DIGITS = 6


def accept(
    known: BaselineFile,
    runs: Sequence[RunRecord],
    *,
    gate: GateSpec | None,
    told: Mapping[str, str],
    add: bool = False,
) -> BaselineFile:
    """Return the file with the figures of `runs` as those of their set-ups.

    Args:
        gate: Only its metrics, at its statistics; else all that hold.
        told: ``accepted``, ``by`` and ``reason`` of the new entries.
        add: Add the runs to those accepted before, instead of replacing them; each
            run counts once.

    Raises:
        MeasurementError: no figure of the runs holds, all are accepted already, or
            they are of different loads.
    """
    kept = {spec.key: spec for spec in known.baselines}
    found: dict[tuple[str, ...], BaselineSpec] = {}
    for run in {run.run_id: run for run in runs}.values():
        for entry in run.entries:
            for statistic in _statistics(entry, gate):
                name = entry.fullname.removeprefix("pd::")
                spec = _empty(entry)
                if add and spec.key in kept and run.run_id in kept[spec.key].runs:
                    continue
                spec = found.setdefault(spec.key, spec)
                found[spec.key] = with_figure(spec, run, name, statistic, entry)
    if not found:
        raise MeasurementError(
            f"The runs have no figure that holds{' and is not accepted' * add}.",
            hint="look at 'holds' in their reports",
        )
    for key, spec in found.items():
        merged = joined(kept[key], spec) if add and key in kept else spec
        kept[key] = merged.model_copy(update=dict(told))
    return BaselineFile(baselines=tuple(sorted(kept.values(), key=_order)))


def _order(spec: BaselineSpec) -> tuple[str, ...]:
    return spec.hardware, spec.topology, *spec.key


def _statistics(entry: Entry, gate: GateSpec | None) -> list[str]:
    if not entry.is_valid or (gate and entry.metric not in gate.metrics):
        return []
    usual = default_statistic(entry.metric)
    if gate:
        wanted = [gate.metrics[entry.metric].statistic or usual]
    else:
        many = usual == "p50" and len(entry.samples) >= TAIL_SAMPLES
        wanted = [usual, "p99"] if many else [usual]
    return [name for name in wanted if has_ratio(entry.samples, name)]


def _empty(entry: Entry) -> BaselineSpec:
    def told(key: str) -> str:
        return str(entry.info.get(key, ""))

    return BaselineSpec(
        hardware=told("hardware"),
        topology=entry.topology,
        topology_hash=told("topology_hash"),
        engine=told("engine"),
        mode=entry.mode,
        label=told("label"),
    )


def with_figure(
    spec: BaselineSpec, run: RunRecord, name: str, statistic: str, entry: Entry
) -> BaselineSpec:
    """Return the entry with one more figure of one run.

    Raises:
        MeasurementError: it was measured under another load than the figures before.
    """
    figure = FigureSpec(
        unit=entry.unit,
        values=(_rounded(statistic_of(entry.samples, statistic)),),
        errors=(_rounded(relative_error(entry.samples, statistic)),),
    )
    load = load_of(entry)
    one = spec.model_copy(
        update={
            "runs": (run.run_id,),
            "loads": {name.rpartition("::")[0]: load} if load else {},
            "figures": {name: {statistic: figure}},
        }
    )
    return joined(spec, one)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def joined(old: BaselineSpec, new: BaselineSpec) -> BaselineSpec:
    """Return both entries as one: the runs of `old`, then those of `new`.

    Raises:
        MeasurementError: a test of both was measured under another load.
    """
    figures = {name: dict(found) for name, found in old.figures.items()}
    for name, found in new.figures.items():
        mine = figures.setdefault(name, {})
        for statistic, figure in found.items():
            before = mine.get(statistic)
            mine[statistic] = _longer(before, figure) if before else figure
    loads = dict(old.loads)
    for test, load in new.loads.items():
        if told := other_load(loads.get(test, {}), load):
            raise MeasurementError(
                f"{test} was measured under another load: {told}.",
                hint="accept runs of one load together; without --add they replace "
                "what was accepted",
            )
        loads[test] = {**loads.get(test, {}), **load}
    runs = tuple(dict.fromkeys((*old.runs, *new.runs)))
    return old.model_copy(update={"runs": runs, "loads": loads, "figures": figures})


def _longer(old: FigureSpec, new: FigureSpec) -> FigureSpec:
    return FigureSpec(
        unit=new.unit,
        values=(*old.values, *new.values),
        errors=(*old.errors, *new.errors),
    )


def changes(old: BaselineFile, new: BaselineFile) -> Iterable[str]:
    """Yield one line for each figure that is new or moved, for the reviewer."""
    known = {spec.key: spec for spec in old.baselines}
    for spec in new.baselines:
        before = known.get(spec.key)
        for name, found in spec.figures.items():
            for statistic, figure in found.items():
                known_here = before.figures.get(name, {}) if before else {}
                was = known_here.get(statistic)
                if was != figure:
                    yield f"{spec.topology} {name} {statistic}: {_told(was, figure)}"


def _told(old: FigureSpec | None, new: FigureSpec) -> str:
    now = median(new.values)
    words = f"{now:.4g} {new.unit} of {len(new.values)} run(s)"
    if old is None:
        return f"{words}, new"
    before = median(old.values)
    return f"{words}, was {before:.4g} ({100 * (now / before - 1):+.1f} %)"


def text_of(file: BaselineFile) -> str:
    """Return the file as YAML in a fixed order, so that a diff shows what moved."""
    data = [_plain(spec) for spec in file.baselines]
    return HEAD + yaml.dump(
        {"baselines": data},
        Dumper=_Dumper,
        sort_keys=False,
        width=100,
        allow_unicode=True,
    )


def _plain(spec: BaselineSpec) -> dict[str, Any]:
    data = spec.model_dump(mode="json")
    for key in ("loads", "figures"):
        data[key] = {name: data[key][name] for name in sorted(data[key])}
    return data


class _Dumper(yaml.SafeDumper):
    """Writes lists of figures on one line."""

    def represent_sequence(
        self, tag: str, sequence: Any, flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        plain = all(isinstance(item, float | int | str) for item in sequence)
        return super().represent_sequence(tag, sequence, flow_style=plain or flow_style)
