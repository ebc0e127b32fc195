"""A harness whose only purpose is to be killed, and how to kill it.

``python -m tests.e2e.lease_harness RUN_DIR RUN_ID TTL_S HOLD_S`` brings a toy
topology up, says ``up``, holds it, takes it down, says ``down``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.identity import marked_with
from pytest_pd.provision.launcher import start_time
from pytest_pd.provision.local import LocalBackend
from pytest_pd.provision.rundir import RunDir
from pytest_pd.spec.cluster import ClusterSpec
from tests.kit import toy_topology

ROOT = Path(__file__).parents[2]


def main() -> None:
    folder, run_id, ttl_s, hold_s = sys.argv[1:]
    cluster = ClusterSpec(name="local", lease_ttl_s=float(ttl_s))
    context = RunDir(Path(folder)).context(run_id, cluster.lease_ttl_s)
    with deploy(toy_topology(), LocalBackend(), cluster, context):
        print("up", flush=True)
        time.sleep(float(hold_s))
    print("down", flush=True)


@contextmanager
def harness(
    folder: Path, run_id: str, *, ttl_s: float = 5.0, hold_s: float = 600.0
) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a running harness; it is killed at the latest when the block ends."""
    words = [sys.executable, "-m", "tests.e2e.lease_harness", str(folder), run_id]
    with subprocess.Popen(
        [*words, str(ttl_s), str(hold_s)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def left_of(folder: Path, run_id: str) -> list[int]:
    """Return every process of a run: by its mark, or by its folder in the words."""
    found = set(marked_with(f"{run_id}/"))
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        pid = int(entry.parent.name)
        if str(folder).encode() in words and pid != os.getpid() and start_time(pid):
            found.add(pid)
    return sorted(found)


def kill_after(folder: Path, run_id: str, delay_s: float, *, hold_s: float) -> float:
    """Kill a harness `delay_s` after its start.

    Returns:
        Seconds until nothing of it was left.

    Raises:
        AssertionError: something lived for 60 s.
    """
    with harness(folder, run_id, hold_s=hold_s) as child:
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
        child.wait()
        begun_s = time.monotonic()
        while left := left_of(folder, run_id):
            assert time.monotonic() - begun_s < 60, f"{left} live on"
            time.sleep(0.05)
        return time.monotonic() - begun_s


if __name__ == "__main__":
    main()
