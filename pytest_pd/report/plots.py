"""Which plots a report shows, and from which figures. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pytest_pd.report.chart import Axis, Plot, Series
from pytest_pd.report.points import Point

CDF_POINTS = 120
LATENCIES = (
    ("ttft", "Time to first token"),
    ("itl", "Gap between tokens"),
    ("tpot", "Time per output token"),
    ("e2e", "Whole answer"),
)
Figure = Callable[[Point], float | None]


def all_plots(points: Sequence[Point], *, several_runs: bool = False) -> list[Plot]:
    """Return every plot that has something to show; invalid points are left out."""
    valid = [point for point in points if point.is_valid]
    label = _label_of(valid, several_runs)
    found = [_throughput(valid, label), pareto(valid, label)]
    found += [_latency(valid, label, *pair) for pair in LATENCIES]
    found += [cdf(valid, label, *pair) for pair in LATENCIES]
    return [plot for plot in found if any(line.points for line in plot.series)]


def _label_of(points: Sequence[Point], several_runs: bool) -> Callable[[Point], str]:
    workloads = len({point.workload for point in points if point.concurrency})

    def label(point: Point) -> str:
        words = [point.run_id] if several_runs else []
        words.append(point.topology)
        return " ".join([*words, point.workload] if workloads > 1 else words)

    return label


def _lines(
    points: Iterable[Point], label: Callable[[Point], str], x: Figure, y: Figure
) -> list[Series]:
    found: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        at, value = x(point), y(point)
        if at is not None and value is not None:
            found.setdefault(label(point), []).append((at, value))
    return [Series(name, tuple(sorted(places))) for name, places in found.items()]


def _streams(point: Point) -> float | None:
    return point.concurrency


def _throughput(points: Sequence[Point], label: Callable[[Point], str]) -> Plot:
    return Plot(
        "throughput",
        "Output tokens per second over concurrency",
        Axis("streams", is_log=True),
        Axis("tokens/s"),
        tuple(_lines(points, label, _streams, lambda p: p.tokens_per_s)),
    )


def pareto(points: Sequence[Point], label: Callable[[Point], str]) -> Plot:
    """Speed for one user against throughput of one GPU, closed loops only."""
    closed = [point for point in points if point.concurrency]
    device = "GPU" if closed and all(point.gpus for point in closed) else "worker"
    return Plot(
        "pareto",
        f"Tokens/s per user against tokens/s per {device}; up and right is better",
        Axis("tokens/s per user"),
        Axis(f"tokens/s per {device}"),
        tuple(
            _lines(
                closed,
                label,
                lambda p: p.tokens_per_s_per_user,
                lambda p: per_device(p, device),
            )
        ),
    )


def per_device(point: Point, device: str) -> float | None:
    """Return tokens per second per GPU, or per worker if that is asked for."""
    share = point.gpus if device == "GPU" else point.workers
    return point.tokens_per_s / share if point.tokens_per_s and share else None


def _latency(
    points: Sequence[Point], label: Callable[[Point], str], metric: str, words: str
) -> Plot:
    series: list[Series] = []
    for name in ("p50", "p90", "p99"):

        def value_ms(point: Point, name: str = name) -> float | None:
            found = point.statistic_s(metric, name)
            return None if found is None else found * 1e3

        for line in _lines(points, label, _streams, value_ms):
            series.append(Series(f"{line.name} {name}", line.points))
    return Plot(
        metric,
        f"{words} ({metric.upper()}) over concurrency",
        Axis("streams", is_log=True),
        Axis("ms"),
        tuple(series),
    )


def cdf(
    points: Sequence[Point], label: Callable[[Point], str], metric: str, words: str
) -> Plot:
    """Share of samples at or below a time, one line for each point."""
    return Plot(
        f"{metric}_cdf",
        f"{words} ({metric.upper()}): share of samples at or below",
        Axis("ms", is_log=True),
        Axis("share"),
        tuple(
            Series(f"{label(point)} {point.label}", steps(entry.samples))
            for point in points
            if (entry := point.entries.get(metric))
        ),
        markers=False,
    )


def steps(samples: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Return (ms, share) of at most `CDF_POINTS` order statistics, last included."""
    ordered = sorted(samples)
    count = len(ordered)
    stride = max(1, -(-count // CDF_POINTS))
    ranks = sorted({*range(0, count, stride), count - 1})
    return tuple((ordered[rank] * 1e3, (rank + 1) / count) for rank in ranks)
