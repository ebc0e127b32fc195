"""What services read from the run directory is there before they start."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import (
    DeploymentPlan,
    ExpectedEvidence,
    ReadyPlan,
    Role,
    ServicePlan,
)
from pytest_pd.provision.deploy import refuse_assumed
from pytest_pd.provision.plan_file import write_files
from pytest_pd.provision.rundir import RunDir
from pytest_pd.spec.cluster import ClusterSpec


def plan(files: Mapping[str, str], *, assumed: bool = False) -> DeploymentPlan:
    service = ServicePlan(
        "nats",
        Role.CONTROL,
        "node0",
        ("x",),
        "x.log",
        ReadyPlan("started", ""),
        files=files,
    )
    return DeploymentPlan(
        name="t",
        identity="",
        hardware="gb200",
        engine="e",
        router="",
        served_model="m",
        model_path="m",
        nodes=(),
        services=(service,),
        endpoints=(),
        expected=ExpectedEvidence(None, None, "none", whole_blocks=False),
        assumed=assumed,
    )


def test_files_are_written_below_the_run_directory(tmp_path: Path) -> None:
    write_files(RunDir(tmp_path), plan({"nats.conf": "a\n", "conf/x.yaml": "b\n"}))

    assert (tmp_path / "nats.conf").read_text() == "a\n"
    assert (tmp_path / "conf" / "x.yaml").read_text() == "b\n"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x"])
def test_a_way_out_of_the_run_directory_is_refused(tmp_path: Path, name: str) -> None:
    run = RunDir(tmp_path / "run")

    with pytest.raises(ProvisionError, match="outside the run directory"):
        write_files(run, plan({name: "x"}))

    assert list(tmp_path.rglob("x")) == []


def test_what_is_planned_for_other_hardware_is_not_started() -> None:
    refuse_assumed(plan({}), ClusterSpec(name="c"))
    with pytest.raises(ProvisionError, match="t is for gb200, and cluster 'c' is cpu"):
        refuse_assumed(plan({}, assumed=True), ClusterSpec(name="c"))
