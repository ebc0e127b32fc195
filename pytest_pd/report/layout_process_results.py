"""Files as ``process_results.py`` of Dynamo's multi-node benchmark scripts left them.

``artifacts/<lengths>/<configuration>/`` holds ``results.csv``, ``plot.png``,
``pareto_plot.png``, ``plot_itl.png``, ``plot_ttft.png`` and ``plot_req.png``; where
several configurations share the lengths, the folder above holds them all together.
Columns, their order and their units (ms) are those of the script.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pytest_pd.errors import MeasurementError
from pytest_pd.report.chart import Axis, Plot, Series
from pytest_pd.report.plots import per_device
from pytest_pd.report.points import Point, points_of
from pytest_pd.report.read import RunRecord
from pytest_pd.report.rows import Cell, Row, to_csv
from pytest_pd.report.write import Content, file_word

COLUMNS = (
    *("", "label", "configuration", "concurrency"),
    *("output_token_throughput_per_request", "output_token_throughput_per_gpu"),
    *("time_to_first_token", "inter_token_latency", "is_pareto_efficient"),
    *("num_gpus", "request_throughput_per_gpu"),
)
"""The script's nine, then two that it only plotted."""


def process_results_files(runs: Sequence[RunRecord], title: str) -> dict[str, Content]:
    """Return path below the output folder to content.

    Args:
        title: Goes into the title of every plot.

    Raises:
        MeasurementError: no closed-loop point holds.
        PdError: matplotlib is not installed.
    """
    points = [p for p in points_of(runs) if p.is_valid and p.concurrency]
    groups: dict[str, dict[str, list[Point]]] = {}
    for point in points:
        shared = groups.setdefault(lengths_of(point), {})
        shared.setdefault(_configuration(point, len(runs) > 1), []).append(point)
    if not groups:
        raise MeasurementError(
            "The runs have no closed-loop point that holds.",
            hint="run suites/performance, and look at 'holds' in report.html",
        )
    files: dict[str, Content] = {}
    for lengths, configurations in groups.items():
        place = f"artifacts/{file_word(lengths)}"
        for name, own in configurations.items():
            folder = f"{place}/{file_word(name)}"
            files |= _folder(folder, {name: own}, title or name)
        if len(configurations) > 1:
            files |= _folder(place, configurations, title or lengths)
    return files


def lengths_of(point: Point) -> str:
    """Return the folder of a workload: its own name if that tells the lengths."""
    if point.workload.startswith("isl_"):
        return point.workload
    info = point.any.info
    sizes = [info.get(f"{way}_tokens_mean") for way in ("input", "output")]
    return "isl_{:.0f}_osl_{:.0f}".format(*(float(size or 0) for size in sizes))


def _configuration(point: Point, several_runs: bool) -> str:
    name = str(point.any.info.get("label") or point.topology)
    return f"{name}_{point.run_id}" if several_runs else name


def _folder(
    place: str, configurations: Mapping[str, Sequence[Point]], title: str
) -> dict[str, Content]:
    from pytest_pd.report.png import png_of

    shown = [point for own in configurations.values() for point in own]
    device = "gpu" if all(point.gpus for point in shown) else "worker"
    files: dict[str, Content] = {
        f"{place}/results.csv": to_csv(_rows(configurations), COLUMNS)
    }
    for name, chart in plots_of(configurations, device, title).items():
        files[f"{place}/{name}.png"] = png_of(chart)
    return files


def _rows(configurations: Mapping[str, Sequence[Point]]) -> list[Row]:
    rows: list[Row] = []
    for name, points in configurations.items():
        best = efficient([_place(point) for point in points])
        for point, is_best in zip(points, best, strict=True):
            rows.append(_row(len(rows), name, point, is_best=is_best))
    return rows


def _row(index: int, name: str, point: Point, *, is_best: bool) -> Row:
    label = name.split("_")[0].replace("context", "disagg")
    cells: tuple[Cell, ...] = (
        *(index, label, name, point.concurrency),
        *(point.tokens_per_s_per_user, per_device(point, "GPU")),
        *(_mean_ms(point, "ttft"), _mean_ms(point, "itl"), is_best),
        *(point.gpus, _requests(point, "GPU")),
    )
    return dict(zip(COLUMNS, cells, strict=True))


def _mean_ms(point: Point, metric: str) -> float | None:
    mean = point.statistic_s(metric, "mean")
    return None if mean is None else 1e3 * mean


def _requests(point: Point, device: str) -> float | None:
    rate = point.human("request_time", "requests_per_s")
    share = point.gpus if device == "GPU" else point.workers
    return rate / share if rate and share else None


def _place(point: Point) -> tuple[float, float]:
    device = "GPU" if point.gpus else "worker"
    return point.tokens_per_s_per_user or 0.0, per_device(point, device) or 0.0


def efficient(places: Sequence[tuple[float, float]]) -> list[bool]:
    """Tell which places no other one reaches or passes in both directions."""
    return [
        not any(
            other[0] >= place[0] and other[1] >= place[1]
            for j, other in enumerate(places)
            if j != i
        )
        for i, place in enumerate(places)
    ]


def plots_of(
    configurations: Mapping[str, Sequence[Point]], device: str, title: str
) -> dict[str, Plot]:
    """Return file stem to plot, as the script made them."""
    share = "GPU" if device == "gpu" else "worker"
    user, each = Axis("tokens/s/user"), Axis(f"tokens/s/{device}")
    streams = Axis("concurrency", is_log=True)

    def per(point: Point) -> float | None:
        return per_device(point, share)

    speed = _lines(configurations, lambda p: p.tokens_per_s_per_user, per)
    found = {
        "plot": Plot(
            "plot", f"Throughput vs. tokens per user {title}", user, each, speed
        ),
        "pareto_plot": Plot(
            "pareto_plot",
            f"Pareto Efficiency Curves {title}",
            user,
            each,
            (*speed, *map(_frontier, speed)),
        ),
    }
    for name, words, y, value in (
        ("plot_itl", "Inter-token latency", "inter_token_latency [ms]", _itl),
        ("plot_ttft", "Time to first token", "time_to_first_token [ms]", _ttft),
    ):
        lines = _lines(configurations, lambda p: p.concurrency, value)
        y_axis = Axis(y, is_log=True)
        found[name] = Plot(name, f"{words} {title}", streams, y_axis, lines)
    lines = _lines(
        configurations, lambda p: p.concurrency, lambda p: _requests(p, share)
    )
    rate = Axis(f"request_throughput_per_{device} [1/s]")
    found["plot_req"] = Plot("plot_req", f"Throughput {title}", streams, rate, lines)
    return found


def _itl(point: Point) -> float | None:
    return _mean_ms(point, "itl")


def _ttft(point: Point) -> float | None:
    return _mean_ms(point, "ttft")


Figure = Callable[[Point], float | None]


def _lines(
    configurations: Mapping[str, Sequence[Point]], x: Figure, y: Figure
) -> tuple[Series, ...]:
    found = []
    for name, points in configurations.items():
        pairs = [(x(point), y(point)) for point in points]
        kept = [(a, b) for a, b in pairs if a is not None and b is not None]
        found.append(Series(name, tuple(kept)))
    return tuple(found)


def _frontier(line: Series) -> Series:
    best = efficient(line.points)
    kept = [place for place, is_best in zip(line.points, best, strict=True) if is_best]
    return replace(
        line, name=f"Pareto Frontier {line.name}", points=tuple(sorted(kept))
    )
