"""Figures over many nights, and where they changed their level. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pd.measure.change_point import ChangePoint, change_points
from pytest_pd.measure.ratio import JITTER
from pytest_pd.report.chart import Axis, Plot, Series
from pytest_pd.report.comparable import other_load
from pytest_pd.report.night import Night
from pytest_pd.report.rows import Row

ALPHA = 0.01
"""Chance that a history in which nothing changed tells of any change at all."""
MOST_PLOTS = 60


@dataclass(frozen=True, slots=True)
class Track:
    """One statistic of one entry of one set-up over the nights.

    Attributes:
        place: Topology, hardware and engine, in words.
        nights: Index into the nights of each value.
        values: In `unit`, oldest first.
        changes: Found in `values`; their index is into `values`.
    """

    name: str
    statistic: str
    place: str
    unit: str
    nights: tuple[int, ...]
    values: tuple[float, ...]
    changes: tuple[ChangePoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """A change of level in words.

    Attributes:
        versions: What else differs from the night before: (name, old, new).
    """

    track: Track
    change: ChangePoint
    night: Night
    versions: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        percent = 100 * (self.change.ratio - 1)
        word = "slower" if percent > 0 else "faster"
        told = "; ".join(f"{n} {a} -> {b}" for n, a, b in self.versions)
        return (
            f"{word} {percent:+.1f} % since {self.night.at} ({self.night.run_id}): "
            f"{self.track.name} {self.track.statistic} on {self.track.place}"
            f"{f' [{told}]' if told else ''}"
        )


def tracks_of(
    nights: Sequence[Night],
    *,
    alpha: float = ALPHA,
    effect: float = 0.0,
    jitter: float = JITTER,
) -> list[Track]:
    """Return every figure over the nights with its changes, those that changed first.

    Under another load a figure is another one from that night on.

    Args:
        alpha: Chance of any false change in all figures together.
        effect: Smallest change that is told, as a share.
    """
    raw: dict[tuple[str, ...], list[tuple[int, float]]] = {}
    loads: dict[tuple[str, ...], tuple[Mapping[str, Any], str]] = {}
    for index, night in enumerate(nights):
        for spec in night.specs:
            mode = spec.mode if spec.mode != "real" else ""
            words = (spec.topology, spec.hardware, spec.engine, mode, spec.label)
            place = ", ".join(filter(None, words))
            for name, figures in spec.figures.items():
                test = name.rpartition("::")[0]
                load, since = spec.loads.get(test, {}), ""
                if known := loads.get((*spec.key, name)):
                    is_other = other_load(known[0], load)
                    since = f", load of {night.at}" if is_other else known[1]
                    load = load if is_other else {**known[0], **load}
                loads[*spec.key, name] = load, since
                for statistic, figure in figures.items():
                    key = (*spec.key, name, statistic, place + since, figure.unit)
                    raw.setdefault(key, []).append((index, figure.values[-1]))
    share = alpha / max(len(raw), 1)
    found = [_track(key, pairs, share, effect, jitter) for key, pairs in raw.items()]
    return sorted(found, key=lambda t: (not t.changes, t.place, t.name, t.statistic))


def _track(
    key: tuple[str, ...],
    pairs: Sequence[tuple[int, float]],
    alpha: float,
    effect: float,
    jitter: float,
) -> Track:
    nights, values = zip(*pairs, strict=True)
    name, statistic, place, unit = key[-4:]
    changes = change_points(values, alpha=alpha, effect=effect, jitter=jitter)
    return Track(name, statistic, place, unit, nights, values, tuple(changes))


def findings(nights: Sequence[Night], tracks: Iterable[Track]) -> list[Finding]:
    """Return every change, newest first."""
    found = []
    for track in tracks:
        for change in track.changes:
            first = nights[track.nights[change.index]]
            before = nights[track.nights[change.index - 1]]
            moved = _moved(before.versions, first.versions)
            found.append(Finding(track, change, first, moved))
    return sorted(found, key=lambda f: (f.night.at, f.change.ratio), reverse=True)


def _moved(
    old: Mapping[str, str], new: Mapping[str, str]
) -> tuple[tuple[str, str, str], ...]:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return tuple((n, _short(old.get(n, "")), _short(new.get(n, ""))) for n in names)


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:12]}…"


def plots_of(tracks: Sequence[Track]) -> list[Plot]:
    """Return a plot for each figure with two values at least, changed ones first."""
    shown = [track for track in tracks if len(track.values) > 1][:MOST_PLOTS]
    return [_plot(index, track) for index, track in enumerate(shown)]


def _plot(index: int, track: Track) -> Plot:
    is_time = track.unit == "s"
    scale = 1e3 if is_time else 1.0
    points = [
        (float(night + 1), value * scale)
        for night, value in zip(track.nights, track.values, strict=True)
    ]
    marks = [
        (track.nights[change.index] + 0.5, f"{100 * (change.ratio - 1):+.0f} %")
        for change in track.changes
    ]
    return Plot(
        f"history_{index:02d}",
        f"{track.name} {track.statistic}, {track.place}",
        Axis("night"),
        Axis("ms" if is_time else track.unit),
        (Series(track.statistic, tuple(points)),),
        marks=tuple(marks),
    )


def rows_of(nights: Sequence[Night], tracks: Iterable[Track]) -> list[Row]:
    """Return one row for each figure of each night."""
    rows: list[Row] = []
    for track in tracks:
        starts = {change.index for change in track.changes}
        pairs = zip(track.nights, track.values, strict=True)
        for at, (night, value) in enumerate(pairs):
            rows.append(
                {
                    "at": nights[night].at,
                    "run_id": nights[night].run_id,
                    "verdict": nights[night].word,
                    "place": track.place,
                    "entry": track.name,
                    "statistic": track.statistic,
                    "unit": track.unit,
                    "value": value,
                    "new_level": at in starts,
                }
            )
    return rows
