"""The built-in proxy's command lines, judged by the program they start."""

import argparse
from typing import Any

import pytest

from pytest_pd.engines.reference import Reference
from pytest_pd.errors import SpecError
from pytest_pd.plan.build import make_plan
from pytest_pd.plan.model import DeploymentPlan, SiteFacts
from pytest_pd.proxy.command import configure, make_options
from pytest_pd.proxy.options import ProxyOptions
from pytest_pd.proxy.policy import POLICIES
from pytest_pd.routers import proxy
from pytest_pd.routers.proxy import Proxy
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.topology import TopologySpec

SITE = SiteFacts(addresses={"node0": "127.0.0.1"})


def plan(**changes: Any) -> DeploymentPlan:
    data: dict[str, Any] = {
        "name": "t",
        "hardware": "cpu",
        "model": {"path": "m", "served_name": "tiny"},
        "engine": {"kind": "reference"},
        "kv_transfer": {"connector": "pull"},
        "router": {"kind": "proxy"},
    }
    if "aggregated" not in changes:
        data |= {"prefill": {"replicas": 2}, "decode": {}}
    topology = TopologySpec.model_validate(data | changes)
    return make_plan(topology, ClusterSpec(name="c"), Reference(), Proxy(), SITE)


def judged(made: DeploymentPlan) -> ProxyOptions:
    """What the proxy makes of its command line."""
    argv = made.service("router").argv
    assert argv[:3] == ("python3", "-m", "pytest_pd.proxy")
    parser = argparse.ArgumentParser()
    configure(parser)
    return make_options(parser.parse_args(argv[3:]))


def test_the_proxy_takes_its_command_line() -> None:
    options = judged(plan())

    assert (options.host, options.port) == ("127.0.0.1", 8000)
    assert [a.base for a in options.prefill] == [
        "http://127.0.0.1:8100",
        "http://127.0.0.1:8101",
    ]
    assert [a.base for a in options.decode] == ["http://127.0.0.1:8102"]


@pytest.mark.parametrize(
    ("changes", "transfer"),
    [
        ({}, "pull"),
        (
            {"kv_transfer": {"connector": "shared_storage", "path": "/kv"}},
            "shared_storage",
        ),
        ({"aggregated": {"replicas": 2}}, "none"),
    ],
)
def test_the_transfer_follows_the_connector(
    changes: dict[str, Any], transfer: str
) -> None:
    assert str(judged(plan(**changes)).transfer) == transfer


def test_aggregated_workers_are_decode_workers_alone() -> None:
    options = judged(plan(aggregated={"replicas": 3}))

    assert options.prefill == ()
    assert len(options.decode) == 3


def test_arguments_and_faults_are_passed_on() -> None:
    options = judged(
        plan(
            router={
                "kind": "proxy",
                "policy": "least_loaded",
                "args": ["--max-concurrent", 4],
                "faults": [{"kind": "bypass_prefill"}],
            }
        )
    )

    assert (options.policy, options.max_concurrent) == ("least_loaded", 4)
    assert [fault.kind for fault in options.faults] == ["bypass_prefill"]


def test_policies_are_those_of_the_program() -> None:
    assert set(proxy.POLICIES) == set(POLICIES)


def test_an_unknown_policy_is_refused_when_planned() -> None:
    with pytest.raises(SpecError, match=r"router\.policy 'kv' is not known"):
        plan(router={"kind": "proxy", "policy": "kv"})


def test_what_it_ignores_is_said() -> None:
    made = plan(router={"kind": "proxy", "session_affinity": {"header": "x-s"}})

    assert "router.session_affinity: the proxy has no such thing." in made.notes


def test_it_starts_beside_the_workers() -> None:
    assert plan().service("router").after == ()
