"""How long after a service dies during bring-up does the harness raise?

    python benchmarks/death_detection.py --count 20

The service writes the time of its death into its log; the harness notes the time
at which `ProcessDied` left `deploy`, teardown of the others included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pytest_pd.errors import ProcessDied
from pytest_pd.provision import bringup as module
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.local import LocalBackend
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.spec.cluster import ClusterSpec
from tests.kit import toy_topology

NEVER = ("--ready-after", "600")


def once(folder: Path) -> tuple[float, float]:
    """Return seconds from death to notice, and from death to all being down."""
    noticed_s: list[float] = []
    check = module.raise_if_dead

    def noting(*args: object) -> None:
        try:
            check(*args)  # type: ignore[arg-type]
        except ProcessDied:
            noticed_s.append(time.time())
            raise

    module.raise_if_dead = noting
    context = RunDir(folder).context(make_run_id(), 5.0)
    topology = toy_topology({"decode-0": (*NEVER, "--die-after", "0.5")})
    try:
        with deploy(topology, LocalBackend(), ClusterSpec(name="local"), context):
            raise AssertionError("it came up")
    except ProcessDied:
        down_s = time.time()
    finally:
        module.raise_if_dead = check
    lines = (folder / "logs" / "decode-0.log").read_text().splitlines()
    died_s = float(next(x for x in lines if x.startswith("dies at ")).split()[-1])
    return noticed_s[0] - died_s, down_s - died_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    found = []
    for _ in range(parser.parse_args().count):
        with tempfile.TemporaryDirectory() as folder:
            found.append(once(Path(folder) / "toy"))
    for name, values in zip(("noticed", "down"), zip(*found, strict=True), strict=True):
        print(
            f"{name}: {statistics.median(values):.3f} s (median of {len(values)}), "
            f"{min(values):.3f} to {max(values):.3f} s"
        )
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
