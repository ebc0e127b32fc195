"""How long a report takes to build, how large it is, and when Chromium has it ready.

A run with 50 entries of 2,000 samples each. Prints medians and ranges as JSON.

    python -m benchmarks.report_page --times 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from pytest_pd.report.read import read_run
from pytest_pd.report.write import files_of
from tests.chromium_kit import look_at
from tests.run_kit import entry, passed, write_run

METRICS = ("ttft", "itl", "tpot", "e2e", "output_token_time")


def make(path: Path) -> Path:
    """Write the run."""
    entries = [
        entry(
            metric,
            [(i * 7919 % 1999 + 1) / 1e4 for i in range(2000)],
            streams=2**step,
            tokens_per_s=100.0 * 2**step,
            tokens_per_s_per_user=50.0 / 2**step,
        )
        for metric in METRICS
        for step in range(10)
    ]
    return write_run(path, entries=entries, verdict=passed())


def told(values: list[float]) -> dict[str, float]:
    """Return median and range."""
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, built = make(Path(folder) / "run"), []
        for _ in range(args.times):
            started_s = time.perf_counter()
            files = files_of([read_run(run)], run)
            built.append(time.perf_counter() - started_s)
        page = run / "report.html"
        page.write_text(files["report.html"])
        looks = look_at(
            [page] * args.times, Path(folder), widths=[1280], schemes=["light"]
        )
        print(
            json.dumps(
                {
                    "built_s": told(built),
                    "page_bytes": page.stat().st_size,
                    "interactive_ms": told([look.interactive_ms for look in looks]),
                    "loaded_ms": told([look.loaded_ms for look in looks]),
                    "load_average": os.getloadavg()[0],
                    "cores": os.cpu_count(),
                }
            )
        )


if __name__ == "__main__":
    main()
