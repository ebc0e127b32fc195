"""The printed plan of shipped topologies, letter by letter.

``PD_UPDATE_GOLDEN=1 pytest tests/golden`` writes the files anew: read the diff.
"""

import os
from pathlib import Path

import pytest

from pytest_pd.plan.model import SiteFacts
from pytest_pd.plan.table import render
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.spec.file import read_cluster, read_topology
from pytest_pd.spec.locate import Roots

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
TOPOLOGIES = PROJECT / "fixtures" / "topologies"
CASES = {
    "local_1p1d": "local",
    "local_2p1d": "local",
    "local_2p2d_tcp": "local",
    "local_agg": "local",
    "k2_2p1d": "gb200_slurm",
    "k2_2p1d_tp8": "gb200_slurm",
}


def printed(name: str, cluster: str) -> str:
    """The plan before an allocation, with this checkout's folder taken out."""
    plan = plan_deployment(
        read_topology(TOPOLOGIES / f"{name}.yaml"),
        read_cluster(PROJECT / "fixtures" / "clusters" / f"{cluster}.yaml"),
        SiteFacts(run_dir="/runs/r1", run_id="r1"),
        roots=Roots(PROJECT),
    )
    commands = cluster == "local"  # real engines have golden files of their own
    return render(plan, commands=commands).replace(str(PROJECT), "PROJECT")


@pytest.mark.parametrize("name", CASES)
def test_the_printed_plan_is_the_recorded_one(name: str) -> None:
    golden = HERE / "plan" / f"{name}.txt"
    text = printed(name, CASES[name])
    if os.environ.get("PD_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")

    assert text == golden.read_text(encoding="utf-8")
