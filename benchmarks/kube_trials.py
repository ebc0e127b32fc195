"""Trials of the Kubernetes backend against a real API server of this machine.

    export KUBEBUILDER_ASSETS=DIR
    python benchmarks/kube_trials.py up --count 3        17 pods: applied, ready, gone
    python benchmarks/kube_trials.py kill --count 10     kill -9 of pytest

``up`` prints seconds from the first request to the first token through the router,
seconds to take everything down, and what is left afterwards, looked for by label over
every kind that the server can list. ``kill`` sends SIGKILL to pytest at a random
moment, in every second round to the helper that renews the lease as well, so that
only the guard in the cluster is left; it fails if any object lives longer than the
lease and 15 s.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.kube_local.control_plane import Plane, control_plane
from pytest_pd.provision.kubernetes.backend import KubernetesBackend
from pytest_pd.provision.rehearse import rehearse
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_cluster, read_topology
from pytest_pd.spec.locate import find

TOPOLOGY = "llama31_8b_8p8d"
SUITE = Path(__file__).parents[1] / "suites" / "correctness" / "test_api.py"
IMAGE = "pytest-pd.local/host"
LEASE_S, MORE_S, LONGEST_S = 5.0, 15.0, 90.0


def cluster_file(plane: Plane, folder: Path) -> Path:
    """Write the cluster file of the control plane."""
    place = {
        "kubectl": plane.kubectl,
        "kubeconfig": str(plane.kubeconfig),
        "image": IMAGE,
        "guard_image": IMAGE,
        "python": sys.executable,
    }
    whole = {"name": "plane", "backend": "kubernetes", "hardware": "cpu", "nodes": 8}
    path = folder / "plane.yaml"
    path.write_text(json.dumps({**whole, "lease_ttl_s": LEASE_S, "kubernetes": place}))
    return path


def kubectl(plane: Plane, *words: str) -> str:
    """Return what kubectl prints."""
    done = subprocess.run(
        [plane.kubectl, "--kubeconfig", str(plane.kubeconfig), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def kinds_of(plane: Plane) -> str:
    """Return every kind that can be listed, but for events, which outlive all."""
    names = kubectl(plane, "api-resources", "--verbs=list", "-o", "name").split()
    return ",".join(name for name in names if not name.startswith("events"))


def left(plane: Plane, kinds: str) -> list[str]:
    """Return every object that carries the label of a run."""
    words = ("get", kinds, "-A", "-l", "pytest-pd/run", "-o", "name")
    return kubectl(plane, *words).split()


def up_once(cluster: ClusterSpec, folder: Path) -> tuple[float, float, int]:
    """Return seconds from nothing to the first token, seconds down, and pods."""
    (found,) = find("topologies", [TOPOLOGY])
    topology, place = rehearse(read_topology(found.path, found.name), cluster)
    run_id = make_run_id()
    context = RunDir(folder / run_id / TOPOLOGY).context(run_id, place.lease_ttl_s)
    make_plan = partial(plan_deployment, topology, place)
    with deploy(make_plan, KubernetesBackend(), place, context) as deployment:
        total_s, pods = deployment.timings["total"], len(deployment.processes)
        begun_s = time.perf_counter()
    return total_s, time.perf_counter() - begun_s, pods


def up(plane: Plane, folder: Path, count: int) -> int:
    """Bring 17 pods up and down again, some times."""
    cluster, kinds = read_cluster(cluster_file(plane, folder)), kinds_of(plane)
    seconds, remains = [], []
    for number in range(count):
        up_s, down_s, pods = up_once(cluster, folder)
        remains = left(plane, kinds)
        seconds.append(up_s)
        print(
            f"{number + 1:3}  {pods} pods ready in {up_s:.1f} s, gone in {down_s:.1f} s"
            f", left of {len(kinds.split(','))} kinds: {remains or 'nothing'}; "
            f"load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    print(f"median {statistics.median(seconds):.1f} s, longest {max(seconds):.1f} s")
    return 1 if remains else 0


def relays_of(parent: int) -> list[int]:
    """Return the pids of the helper that renews the lease."""
    done = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split(None, 1) for line in done.stdout.splitlines()]
    return [int(pid) for pid, args in lines if "kubernetes.relay" in args]


def kill_once(
    plane: Plane, folder: Path, kinds: str, delay_s: float, *, relay_too: bool
) -> tuple[int, float]:
    """Return how many objects there were at the signal, and seconds to none."""
    old = set(left(plane, kinds))  # what an earlier round has left, if any

    def fresh(asked: str = kinds) -> set[str]:
        return set(left(plane, asked)) - old

    options = ["--topology", TOPOLOGY, "--rehearse", "--cluster"]
    options += [str(folder / "plane.yaml"), "--run-dir", str(folder / make_run_id())]
    child = subprocess.Popen(
        [sys.executable, "-m", "pytest", str(SUITE), *options],
        cwd=SUITE.parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while child.poll() is None and not fresh("namespaces"):
        time.sleep(0.1)
    with suppress(subprocess.TimeoutExpired):
        child.wait(delay_s)
    relays = relays_of(child.pid) if relay_too else []
    child.kill()
    for pid in relays:
        os.kill(pid, signal.SIGKILL)
    begun_s, remains = time.monotonic(), set[str]()
    child.wait()
    count = len(fresh())
    while time.monotonic() - begun_s < LONGEST_S:
        # one kind is asked for often, all kinds when that one is gone
        if not fresh("namespaces") and not (remains := fresh()):
            return count, time.monotonic() - begun_s
        time.sleep(0.2)
    print(f"     left: {', '.join(sorted(remains or fresh()))}")
    return count, time.monotonic() - begun_s


def kill(plane: Plane, folder: Path, count: int, seed: int) -> int:
    """Kill pytest at random moments after its namespace is there."""
    cluster_file(plane, folder)
    kinds, draw, seconds = kinds_of(plane), random.Random(seed), []
    for number in range(count):
        delay_s, relay_too = draw.uniform(0.0, 8.0), number % 2 == 1
        objects, gone_s = kill_once(plane, folder, kinds, delay_s, relay_too=relay_too)
        seconds.append(gone_s)
        who = "pytest and its helper" if relay_too else "pytest"
        print(
            f"{number + 1:3}  {who} killed {delay_s:.1f} s after its namespace, "
            f"{objects} objects: gone in {gone_s:.1f} s; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    late = sum(each > LEASE_S + MORE_S for each in seconds)
    print(
        f"{count} x SIGKILL: median {statistics.median(seconds):.1f} s, longest "
        f"{max(seconds):.1f} s, over {LEASE_S + MORE_S:g} s: {late}"
    )
    return 1 if late else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trial", choices=("up", "kill"))
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    with control_plane() as plane, tempfile.TemporaryDirectory() as folder:
        if args.trial == "up":
            return up(plane, Path(folder), args.count)
        return kill(plane, Path(folder), args.count, args.seed)


if __name__ == "__main__":
    raise SystemExit(main())
