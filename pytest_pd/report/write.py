"""Write the files of a report: each whole, or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_pd.errors import PdError
from pytest_pd.files import write_whole
from pytest_pd.report.chart import Chart
from pytest_pd.report.collect import topology_charts
from pytest_pd.report.page import make_page
from pytest_pd.report.plots import all_plots
from pytest_pd.report.points import points_of
from pytest_pd.report.read import RunRecord
from pytest_pd.report.rows import LONG, long_rows, to_csv, wide_rows
from pytest_pd.report.summary import summary_markdown

Content = str | bytes


def files_of(
    runs: Sequence[RunRecord], out: Path, *, title: str = ""
) -> dict[str, str]:
    """Return file name to content; `out` is where they will lie."""
    return {
        "report.html": make_page(runs, out, title=title),
        "summary.md": summary_markdown(runs),
        "results.csv": to_csv(long_rows(runs), LONG),
        "results_wide.csv": to_csv(wide_rows(runs)),
    }


def png_files(runs: Sequence[RunRecord]) -> dict[str, bytes]:
    """Return ``plots/<name>.png`` to content, for every chart of the page.

    Raises:
        PdError: matplotlib is not installed.
    """
    from pytest_pd.report.png import png_of

    charts = named_charts(runs)
    return {f"plots/{name}.png": png_of(chart) for name, chart in charts.items()}


def named_charts(runs: Sequence[RunRecord]) -> dict[str, Chart]:
    """Return file stem to chart: sweeps of all runs, then what each topology has."""
    points, several = points_of(runs), len(runs) > 1
    found: dict[str, Chart] = {
        chart.name: chart for chart in all_plots(points, several_runs=several)
    }
    for run in runs:
        for topology in run.topologies:
            words = [run.run_id, topology.name] if several else [topology.name]
            place = (run.run_id, topology.name)
            own = [p for p in points if (p.run_id, p.topology) == place]
            for chart in topology_charts(topology, own):
                found["_".join(map(file_word, [*words, chart.name]))] = chart
    return found


def file_word(text: str) -> str:
    """Return text that every file system takes as a name."""
    return re.sub(r"[^\w.@=+-]+", "-", text).strip("-.") or "unnamed"


def write_files(out: Path, files: Mapping[str, Content]) -> list[Path]:
    """Write each file whole or not at all, and return the paths.

    What has no place in UTF-8, such as bytes of another encoding, is escaped.

    Raises:
        PdError: the folder cannot be written.
    """
    written = []
    try:
        for name, content in files.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, _bytes(content))
            written.append(path)
    except OSError as error:
        raise PdError(
            f"{str(out)!r} cannot be written: {error.strerror}.",
            hint="choose another folder with --out",
        ) from error
    return written


def _bytes(content: Content) -> bytes:
    if isinstance(content, bytes):
        return content
    return content.encode("utf-8", "backslashreplace")
