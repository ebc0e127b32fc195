"""A harness killed at random moments: how long until nothing of it is left.

    python benchmarks/provision/killed_harness.py slurm --times 20
    python benchmarks/provision/killed_harness.py ssh --times 20

Starts a real Slurm (or real sshd hosts) on loopback, runs a harness in a process of
its own with a lease of 5 s, kills it with SIGKILL after 0.2 to 5 s, and counts the
seconds until its job and every process with its mark are gone for good.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pytest_pd.provision.identity import marked_with  # noqa: E402
from pytest_pd.provision.rundir import RunDir, make_run_id  # noqa: E402
from pytest_pd.spec.cluster import ClusterSpec  # noqa: E402
from tests.e2e.slurm_kit import cluster, harness  # noqa: E402
from tests.services_slurm import slurm_site  # noqa: E402
from tests.services_sshd import sshd_hosts  # noqa: E402

TTL_S = 5.0
LATER_S = 1.5
MOST_S = 60.0
Left = Callable[[str], list[object]]


def started(kind: str, folder: Path, stack: ExitStack) -> tuple[ClusterSpec, Left]:
    """Start the services; return the cluster and what is left of a run there."""
    if kind == "slurm":
        site = stack.enter_context(slurm_site(folder / "slurm", 4))
        stack.enter_context(site.as_default())
        return cluster(TTL_S), lambda run: [*site.jobs_of(run), *marked(run)]
    hosts = stack.enter_context(sshd_hosts(folder / "sshd", 2))
    place = ClusterSpec(
        name="bench",
        backend="ssh",
        lease_ttl_s=TTL_S,
        ssh=hosts.site(run_dir=str(folder / "remote")),
    )
    return place, lambda run: [*marked(run)]


def marked(run_id: str) -> list[int]:
    return list(marked_with(f"{run_id}/"))


def gone_after_s(left: Left, run_id: str) -> float:
    """Wait until nothing is left, and still nothing is a moment later."""
    began_s = last_s = time.monotonic()
    while time.monotonic() - last_s < LATER_S:
        if left(run_id):
            last_s = time.monotonic()
        assert last_s - began_s < MOST_S, left(run_id)
        time.sleep(0.05)
    return last_s - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("slurm", "ssh"))
    parser.add_argument("--times", type=int, default=20)
    args = parser.parse_args()
    rng = random.Random(f"killed {args.kind}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        place, left = started(args.kind, folder, stack)
        load, found = os.getloadavg()[0], []
        for _ in range(args.times):
            run_id = make_run_id()
            with harness(place, RunDir(folder / run_id / "toy"), run_id) as child:
                time.sleep(rng.uniform(0.2, 5.0))
                child.kill()
                child.wait()
            found.append(gone_after_s(left, run_id))
    print(
        f"{args.kind}: {args.times} kills, gone after median "
        f"{statistics.median(found):.2f} s, at most {max(found):.2f} s "
        f"(load before {load:.1f}, lease {TTL_S:g} s)"
    )


if __name__ == "__main__":
    main()
