"""How long `pytest-pd merge` takes, from its start to its end.

    python -m benchmarks.merge_shards --shards 50 --cases 10000

Shards share the cases evenly; every tenth case failed with a traceback of fifty lines,
and half of those are green in a shard that ran them again. Prints seconds as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.sax.saxutils import escape

TRACE = "\n".join(f"suites/performance/test_sweep.py:{n}: in <call>" for n in range(50))
PROPERTIES = "".join(
    f'<property name="pd_{key}" value="local_1p1d"/>' for key in ("topology", "mode")
)


def case(number: int, is_bad: bool) -> str:
    """Return one test case as pytest writes it."""
    bad = f'<failure message="assert {number} == 0">{escape(TRACE)}</failure>'
    return (
        f'<testcase classname="suites.performance.test_sweep" time="0.{number}" '
        f'name="test_closed_loop[local_sweep:c{number}-local_1p1d]">'
        f"<properties>{PROPERTIES}</properties>{bad if is_bad else ''}</testcase>"
    )


def write(path: Path, cases: list[str]) -> Path:
    """Write a shard."""
    body = "".join(cases)
    path.write_text(
        f'<testsuites><testsuite name="pytest" tests="{len(cases)}">{body}'
        "</testsuite></testsuites>"
    )
    return path


def make(folder: Path, shards: int, cases: int) -> list[Path]:
    """Write the shards, and one more with what was run again."""
    found = []
    for shard in range(shards):
        mine = range(shard, cases, shards)
        told = [case(number, number % 10 == 0) for number in mine]
        found.append(write(folder / f"shard-{shard:03}.xml", told))
    again = [case(number, is_bad=False) for number in range(0, cases, 20)]
    return [*found, write(folder / "again.xml", again)]


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=50)
    parser.add_argument("--cases", type=int, default=10_000, help="of all shards")
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        files = make(Path(folder), args.shards, args.cases)
        out = Path(folder) / "all.xml"
        words = [sys.executable, "-m", "pytest_pd.cli", "merge", *map(str, files)]
        for _ in range(args.times):
            begun_s = time.perf_counter()
            done = subprocess.run(
                [*words, "--out", str(out)], capture_output=True, text=True, check=False
            )
            taken.append(time.perf_counter() - begun_s)
        told = {
            "shards": args.shards,
            "cases": args.cases,
            "said": done.stdout.splitlines()[:1],
            "median_s": round(statistics.median(taken), 2),
            "range_s": [round(min(taken), 2), round(max(taken), 2)],
            "load_average": round(os.getloadavg()[0], 1),
            "cores": os.cpu_count(),
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
