"""How often Slurm is asked in a long run, and how soon a death is noticed there.

    python benchmarks/provision/long_run.py --seconds 600

Brings a rehearsed ``k2_2p1d`` up on a real Slurm, looks at every service five times a
second as a session does between tests, and counts the questions to the controller.
Then kills one service after the other with SIGKILL and takes the time until the
harness knows.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.provision.bring_up import place  # noqa: E402
from pytest_pd.installer.paths import bin_dir, find_program  # noqa: E402
from pytest_pd.provision.compose import plan_deployment  # noqa: E402
from pytest_pd.provision.deploy import deploy  # noqa: E402
from pytest_pd.provision.rehearse import rehearse  # noqa: E402
from pytest_pd.provision.rundir import RunDir, make_run_id  # noqa: E402
from pytest_pd.provision.slurm import SlurmBackend  # noqa: E402
from pytest_pd.spec.file import read_topology  # noqa: E402
from tests.services_slurm import slurm_site  # noqa: E402

TOPOLOGY = ROOT / "fixtures" / "topologies" / "k2_2p1d.yaml"


def noticed_s(process: object) -> float:
    """Kill a service; return the seconds until its exit code is known."""
    host_pid = process.identity()["pid"]  # type: ignore[attr-defined]
    began_s = time.monotonic()
    os.kill(int(host_pid), signal.SIGKILL)
    while process.exit_code() is None:  # type: ignore[attr-defined]
        time.sleep(0.01)
    return time.monotonic() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    args = parser.parse_args()
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], str(bin_dir())])
    topology, where = rehearse(
        read_topology(TOPOLOGY),
        place(12),
        installed=lambda program: find_program(program) is not None,
    )
    run_id, backend = make_run_id(), SlurmBackend()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        context = RunDir(folder / run_id / "x").context(run_id, where.lease_ttl_s)
        context.run_dir.mkdir(parents=True)
        with slurm_site(folder / "slurm", 12) as site, site.as_default():
            began_s = time.monotonic()
            with deploy(
                lambda facts: plan_deployment(topology, where, facts),
                backend,
                where,
                context,
            ) as deployment:
                while time.monotonic() - began_s < args.seconds:
                    deployment.check_alive()
                    time.sleep(0.2)
                asked, load = backend.client.queries, os.getloadavg()[0]
                deaths = [noticed_s(p) for p in deployment.processes.values()]
    print(
        f"{args.seconds:g} s: {asked} questions to the controller; "
        f"a death was noticed after median {statistics.median(deaths):.2f} s, at most "
        f"{max(deaths):.2f} s of {len(deaths)} (load {load:.1f}, {os.cpu_count()} CPUs)"
    )


if __name__ == "__main__":
    main()
