"""All charts of one topology, from its figures and from the files beside them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_pd.report.chart import Bars, Chart, Plot
from pytest_pd.report.counters import bandwidth, pages_of, routing
from pytest_pd.report.outcome_charts import accuracy, instrument, refits
from pytest_pd.report.points import Point
from pytest_pd.report.read import TopologyRecord
from pytest_pd.report.timeline import timeline_of

PAIRS = Path("evals") / "recall_pairs.json"


def topology_charts(topology: TopologyRecord, points: Sequence[Point]) -> list[Chart]:
    """Return what there is to show of one topology besides its sweeps.

    Args:
        points: Of this topology in this run.
    """
    pages = pages_of(topology.folder)
    timeline = timeline_of(topology)
    found: list[Chart] = [timeline] if timeline else []
    found += [
        routing(topology, pages),
        bandwidth(topology, pages),
        accuracy(topology.entries, rows_of(topology.folder / PAIRS)),
        refits(topology.entries, rows_of(topology.folder / "outcomes.json")),
        instrument(points),
    ]
    return [chart for chart in found if not _is_empty(chart)]


def _is_empty(chart: Chart) -> bool:
    match chart:
        case Plot():
            return not chart.series
        case Bars():
            return not chart.bars
        case _:
            return False


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return a JSON file's list of objects; nothing where there is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    rows = found if isinstance(found, list) else []
    return [row for row in rows if isinstance(row, dict)]
