"""Warm refits against a plain exchange of the same bytes, in turn, and twin run times.

usage: python benchmarks/refit/warm_vs_plain.py kimi_k2 mid --iterations 9
       python benchmarks/refit/warm_vs_plain.py kimi_k2 tiny --no-plain

Refit and plain exchange alternate between the same processes of one run. Prints for
each scenario median, least and greatest of the slowest rank, and the ratio of medians.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

from pytest_pd.refit.files import read_refit
from pytest_pd.refit.run import Settings, run_jobs, twin_jobs


def spread(samples_s: tuple[float, ...]) -> str:
    """Return median, least and greatest in ms."""
    if not samples_s:
        return "-"
    low, high = min(samples_s) * 1e3, max(samples_s) * 1e3
    return f"{median(samples_s) * 1e3:.1f} ms ({low:.1f} to {high:.1f})"


def main() -> int:
    """Run all scenarios once and print; 1 if one is not verified."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("size")
    parser.add_argument("--iterations", type=int, default=9)
    parser.add_argument("--no-plain", action="store_true")
    args = parser.parse_args()
    spec = read_refit(args.name)
    settings = Settings(
        warmup=2, iterations=args.iterations, plain=not args.no_plain, timeout_s=120
    )
    load = os.getloadavg()[0]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="pd-bench-") as scratch:
        folder = Path(scratch)
        jobs = twin_jobs(spec, spec.scenarios, args.size, folder, settings)
        outcomes = run_jobs(jobs, folder)
    elapsed_s = time.perf_counter() - start
    for o in outcomes:
        plain = f"plain {spread(o.plain_s)}, ratio {o.plain_ratio:.2f}, "
        print(
            f"{o.name} {o.status}: refit {spread(o.refit_s)}, "
            f"{'' if args.no_plain else plain}{o.remote_bytes / 1e6:.0f} MB remote"
        )
    cores = len(os.sched_getaffinity(0))
    print(f"all {elapsed_s:.1f} s; {cores} cores, load {load:.1f} before")
    return 0 if all(o.status == "verified" for o in outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
