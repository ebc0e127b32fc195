"""Topologies may each have a workload of one name, with points of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOPOLOGY = ROOT / "fixtures" / "topologies" / "local_1p1d.yaml"
SWEEP = ROOT / "suites" / "performance" / "test_sweep.py"


def collected(folder, points):
    """Return the points that ``--pd-level quick`` collects of ``mine``."""
    for name, values in points.items():
        own = f"workloads: [{{name: mine, input_tokens: 16, concurrency: {values}}}]\n"
        text = TOPOLOGY.read_text().replace("name: local_1p1d", f"name: {name}")
        (folder / f"{name}.yaml").write_text(text + own)
    chosen = ",".join(str(folder / f"{name}.yaml") for name in points)
    words = ["--pd-topology", chosen, "--pd-level", "quick", "--collect-only", "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", SWEEP, *words, "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if "[mine:" in line]
    return sorted(line.partition("[")[2].rstrip("]") for line in lines)


def test_each_topology_runs_its_own_points_at_its_own_levels(tmp_path):
    points = {
        "a": "[1]",
        "b": "[{value: 1, level: full}, {value: 8, level: quick}]",
    }

    assert collected(tmp_path, points) == ["mine:c1-topo:a", "mine:c8-topo:b"]
