"""How long do services outlive a harness that is killed at a random moment?

    python benchmarks/kill_harness.py --count 30

Prints the median and the spread of the seconds until no process was left.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pytest_pd.provision.rundir import make_run_id
from tests.e2e.lease_harness import kill_after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--longest", type=float, default=1.6, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    moments = random.Random(args.seed)
    took_s = []
    for _ in range(args.count):
        with tempfile.TemporaryDirectory() as folder:
            delay_s = moments.uniform(0.0, args.longest)
            took_s.append(
                kill_after(Path(folder) / "toy", make_run_id(), delay_s, hold_s=0.5)
            )
    print(
        f"{args.count} kills: nothing left after {statistics.median(took_s):.2f} s "
        f"(median), {max(took_s):.2f} s (longest); load {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()
