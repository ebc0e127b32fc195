"""Requests that would pend for ever are refused with both numbers."""

import pytest

from pytest_pd.errors import ProvisionError, SpecError
from pytest_pd.provision.slurm_limits import (
    Wanted,
    check_limits,
    features,
    gpus_of,
    is_out,
    partition_of,
)
from pytest_pd.spec.site_slurm import SlurmSite

BATCH = {
    "PartitionName": "batch",
    "Default": "YES",
    "State": "UP",
    "MaxTime": "02:00:00",
    "MaxNodes": "UNLIMITED",
    "TotalNodes": "8",
}
SMALL = {**BATCH, "PartitionName": "small", "Default": "NO", "MaxNodes": "2"}
CLOSED = {**BATCH, "PartitionName": "closed", "Default": "NO", "State": "DOWN"}
PARTITIONS = [BATCH, SMALL, CLOSED]
K2 = Wanted("k2", 7, 4)


def nodes(count=8, **fields):
    base = {
        "Partitions": "batch,small",
        "State": "IDLE",
        "Gres": "gpu:4(S:0-1)",
        "AvailableFeatures": "gb200,fast",
    }
    return [{"NodeName": f"n{n:02}", **base, **fields} for n in range(1, count + 1)]


def check(given=None, site=None, wanted=K2):
    check_limits(
        SlurmSite(**(site or {})),
        wanted,
        PARTITIONS,
        nodes() if given is None else given,
    )


def test_what_fits_is_accepted():
    check()


def test_the_default_partition_is_meant_when_none_is_named():
    assert partition_of(SlurmSite(), PARTITIONS)["PartitionName"] == "batch"


def test_a_wrong_partition_names_the_nearest():
    with pytest.raises(SpecError, match="batsh") as caught:
        check(site={"partition": "batsh"})

    assert "did you mean 'batch'" in str(caught.value)


def test_no_default_partition_lists_what_there_is():
    with pytest.raises(SpecError, match="no default") as caught:
        partition_of(SlurmSite(), [SMALL, CLOSED])

    assert "closed, small" in str(caught.value)


def test_a_closed_partition_is_refused():
    with pytest.raises(ProvisionError, match="DOWN"):
        check(site={"partition": "closed"})


def test_a_time_above_the_limit_is_refused_with_both_numbers():
    with pytest.raises(ProvisionError, match=r"is 121.*allows 120 minutes"):
        check(site={"time_limit_min": 121})


def test_more_nodes_than_the_partition_allows_are_refused():
    with pytest.raises(ProvisionError, match=r"needs 7 nodes.*at most 2"):
        check(site={"partition": "small"})


def test_more_nodes_than_there_are_are_refused():
    with pytest.raises(ProvisionError, match=r"needs 9 nodes.*has 8"):
        check(wanted=Wanted("big", 9, 4))


def test_too_few_gpus_are_counted():
    with pytest.raises(ProvisionError, match="0 of them with gpu:8"):
        check(wanted=Wanted("h100", 2, 8))


def test_a_feature_that_too_few_have_is_counted():
    given = [*nodes(3), *nodes(5, AvailableFeatures="gb300")]
    with pytest.raises(ProvisionError, match="3 of them with feature 'gb200'"):
        check(given, site={"constraint": "gb200"})


def test_an_expression_of_features_is_left_to_slurm():
    check(site={"constraint": "gb300|gb200"})


def test_nodes_that_are_down_are_named():
    given = [*nodes(6), *nodes(2, State="DOWN*+DRAIN")]
    with pytest.raises(ProvisionError, match="6 of them not down") as caught:
        check(given)

    assert "sinfo -R" in str(caught.value)


def test_excluded_nodes_do_not_count():
    with pytest.raises(ProvisionError, match="6 of them not excluded"):
        check(site={"exclude": ("n01", "n02")})


@pytest.mark.parametrize(
    ("gres", "name", "count"),
    [
        ("gpu:4", "gpu", 4),
        ("gpu:h100:8(S:0-1)", "gpu", 8),
        ("gpu:h100:8(S:0-1),nic:2", "gpu:h100", 8),
        ("gpu:a100:4", "gpu:h100", 0),
        ("(null)", "gpu", 0),
        ("gpu:a:2,gpu:b:3", "gpu", 5),
    ],
)
def test_gpus_of_a_node_are_counted(gres, name, count):
    assert gpus_of({"Gres": gres}, name) == count


@pytest.mark.parametrize(
    ("state", "out"),
    [
        ("IDLE", False),
        ("ALLOCATED", False),
        ("MIXED+CLOUD", False),
        ("IDLE*", True),
        ("DOWN", True),
        ("IDLE+DRAIN", True),
        ("ALLOCATED+DRAIN", True),
        ("IDLE+MAINT+RESERVED", True),
        ("IDLE+NOT_RESPONDING", True),
        ("IDLE+CLOUD+POWERED_DOWN", False),
        ("MIXED+CLOUD+NOT_RESPONDING+POWERING_UP", False),
        ("DOWN+CLOUD+POWERED_DOWN", True),
        ("IDLE+DRAIN+POWERED_DOWN", True),
    ],
)
def test_nodes_that_start_no_job_are_known(state, out):
    assert is_out({"State": state}) is out


def test_nodes_in_maintenance_are_there_for_a_job_that_names_the_reservation():
    given = nodes(7, State="IDLE+MAINT+RESERVED")

    check(given, site={"reservation": "upgrade"})
    with pytest.raises(ProvisionError, match="0 of them not down"):
        check(given)


def test_no_features_are_no_feature():
    assert features({"AvailableFeatures": "(null)"}) == frozenset()
