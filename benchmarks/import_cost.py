"""What the installed plugin costs a session that does not use it.

    python benchmarks/import_cost.py --count 20

Runs pytest on an empty test with and without the plugin in turn (A B A B), no other
plugin loaded, and prints medians and paired differences of wall and CPU time; on a busy
machine only the latter means something.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WITH = ["-p", "pytest_pd.plugin"]
BARE = ["-p", "nothing_plugin"]
"""Empty: ``-p`` has pytest look at every distribution, as any start does."""
ALONE = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
# An installed plugin is compiled once; without its .pyc each session would do it anew.
ALONE.pop("PYTHONDONTWRITEBYTECODE", None)


def cost(folder: Path, options: list[str]) -> tuple[float, float]:
    """Return wall and CPU seconds of one session."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun_s = time.perf_counter()
    subprocess.run(words, cwd=folder, env=ALONE, check=True, stdout=subprocess.DEVNULL)
    wall_s = time.perf_counter() - begun_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall_s, cpu_s


def describe(kind: str, bare: list[float], used: list[float]) -> str:
    """Return medians in milliseconds and the quartiles of the paired difference."""
    pairs = [1e3 * (a - b) for a, b in zip(used, bare, strict=True)]
    low, _, high = statistics.quantiles(pairs, n=4)
    return (
        f"{kind}: bare {1e3 * statistics.median(bare):.0f} ms, with plugin "
        f"{1e3 * statistics.median(used):.0f} ms; difference median "
        f"{statistics.median(pairs):.1f} ms (quartiles {low:.1f} to {high:.1f})"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    args = parser.parse_args()
    used, bare = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "test_nothing.py").write_text("def test_nothing(): pass\n")
        (folder / "nothing_plugin.py").touch()
        cost(folder, WITH)
        for _ in range(args.count):
            bare.append(cost(folder, BARE))
            used.append(cost(folder, WITH))
    for i, kind in enumerate(("wall", "CPU")):
        print(describe(kind, [b[i] for b in bare], [u[i] for u in used]))
    print(f"{args.count} pairs, load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
