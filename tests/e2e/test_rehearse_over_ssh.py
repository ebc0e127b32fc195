"""A rehearsal over SSH hosts: the third place where the same plan runs."""

import os
import subprocess
import sys

import pytest
import yaml

from pytest_pd.installer.paths import bin_dir
from tests import services_sshd
from tests.e2e.slurm_kit import ROOT, green
from tests.services import require
from tests.services_sshd import sshd_hosts


@pytest.fixture
def hosts(tmp_path):
    if why := services_sshd.missing():
        require("sshd", why)
    with sshd_hosts(tmp_path / "sshd", 7) as made:
        yield made


def test_kimi_k2_is_rehearsed_on_seven_hosts(hosts, tmp_path):
    site = hosts.site(run_dir=str(tmp_path / "remote"), package_python=sys.executable)
    cluster = {
        "name": "hosts",
        "backend": "ssh",
        "lease_ttl_s": 20,
        "ssh": site.model_dump(mode="json", exclude_defaults=True),
    }
    path = tmp_path / "hosts.yaml"
    path.write_text(yaml.safe_dump(cluster))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "suites/correctness/test_handover.py"),
            *(
                "suites/performance/test_sweep.py",
                "--topology",
                "k2_2p1d",
                "--rehearse",
                "--cluster",
                str(path),
            ),
            *("--run-dir", str(tmp_path / "run"), "-q"),
        ],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:{bin_dir()}"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )

    green(done, tmp_path / "run")
    logs = tmp_path / "run" / "k2_2p1d@rehearsal" / "logs"
    assert "sent from the cluster" in (logs / "bench.log").read_text()
    assert (logs / "prefill-worker-1-4.log").stat().st_size > 0
    assert not list((tmp_path / "remote").rglob("lease"))
