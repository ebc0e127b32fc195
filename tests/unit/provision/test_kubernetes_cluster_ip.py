"""One cluster IP per role: the router is told the names that the Services have."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.kubernetes.write import RUN_ID, rendered
from pytest_pd.spec.file import read_cluster, read_topology

ROOT = Path(__file__).parents[3]
FILE = ROOT / "fixtures/topologies/llama31_8b_8p8d.yaml"
H100 = ROOT / "fixtures/clusters/h100_kubernetes.yaml"


def objects_in(namespace):
    spec, cluster = read_topology(FILE, "llama31_8b_8p8d_clusterip"), read_cluster(H100)
    site = cluster.kubernetes.model_copy(update={"namespace": namespace})
    place = cluster.model_copy(update={"kubernetes": site})
    make = partial(plan_deployment, spec, place)
    return rendered(lambda site: make(replace(site, run_id=RUN_ID)), place)


@pytest.mark.parametrize("namespace", [None, "team"])
def test_the_router_is_told_the_names_of_the_services(namespace):
    found = objects_in(namespace)
    (router,) = [
        m
        for m in found
        if m["kind"] == "Pod" and m["metadata"]["name"].endswith("router-llama31")
    ]
    words = router["spec"]["containers"][0]["command"]
    services = {m["metadata"]["name"] for m in found if m["kind"] == "Service"}
    urls = [words[words.index(flag) + 1] for flag in ("--prefill", "--decode")]

    hosts = [url.removeprefix("http://").partition(".")[0] for url in urls]
    assert set(hosts) <= services
    rest = ".$(POD_NAMESPACE).svc.cluster.local:"
    assert [url.partition(rest)[2] for url in urls] == ["8000", "8200"]


def test_eight_pods_behind_an_address_are_told_as_eight_ranks():
    text = str(objects_in(None))

    assert "'--intra-node-data-parallel-size', '8'" in text
