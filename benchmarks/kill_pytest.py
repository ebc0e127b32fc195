"""Kill pytest at random moments and see how long its services live.

    python benchmarks/kill_pytest.py --count 30
    python benchmarks/kill_pytest.py --count 5 --signal TERM

Each round runs ``pytest suites/correctness/test_api.py`` on ``local_1p1d`` and sends
the signal at a random moment of bring-up, tests or teardown. Prints the seconds
until nothing of the run was left, and fails if anything lives longer than 10 s.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_pd.provision.identity import marked_with
from pytest_pd.provision.rundir import id_of, runs_below

SUITE = Path(__file__).parents[1] / "suites" / "correctness" / "test_api.py"
LIMIT_S = 10.0


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start pytest with its runs below `folder`."""
    options = ["--pd-topology", "local_1p1d", "-q", "-p", "no:cacheprovider"]
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", str(SUITE), *options],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def left(folder: Path) -> list[int]:
    """Return the processes of every run below `folder`, pytest apart."""
    found: set[int] = set()
    for run in runs_below(folder / "runs"):
        if run_id := id_of(run):
            found |= set(marked_with(f"{run_id}/"))
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if bytes(folder) in words and int(entry.parent.name) != os.getpid():
            found.add(int(entry.parent.name))
    return sorted(found)


def one_round(delay_s: float, number: int) -> float:
    """Return the seconds from the signal until nothing was left."""
    with tempfile.TemporaryDirectory(prefix="pd-kill-") as name:
        folder = Path(name)
        child = start(folder)
        try:
            child.wait(delay_s)
        except subprocess.TimeoutExpired:
            os.kill(child.pid, number)
        begun_s = time.monotonic()
        child.wait(60)
        while left(folder) and time.monotonic() - begun_s < 60:
            time.sleep(0.05)
        return time.monotonic() - begun_s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--signal", default="KILL")
    parser.add_argument("--longest", type=float, default=5.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    number = getattr(signal, f"SIG{args.signal}")
    seconds = []
    for i in range(args.count):
        delay_s = draw.uniform(0.0, args.longest)
        seconds.append(one_round(delay_s, number))
        print(f"{i + 1:3}  after {delay_s:5.2f} s: gone in {seconds[-1]:5.2f} s")
    late = sum(each > LIMIT_S for each in seconds)
    print(
        f"{args.count} x SIG{args.signal}: median {statistics.median(seconds):.2f} s, "
        f"longest {max(seconds):.2f} s, over {LIMIT_S:g} s: {late}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    return 1 if late else 0


if __name__ == "__main__":
    raise SystemExit(main())
