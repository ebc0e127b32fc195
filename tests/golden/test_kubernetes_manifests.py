"""What `pytest-pd plan --manifests` writes, held against golden files and schemas."""

from __future__ import annotations

import json
import os
import warnings
from functools import partial
from pathlib import Path

import pytest

from pytest_pd.provision.compose import fitting, plan_deployment
from pytest_pd.provision.kubernetes.write import file_stem, rendered
from pytest_pd.spec.file import read_cluster, read_topology
from tests.kube_crds import SPECS
from tests.services import require

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "kubernetes"
FILE = ROOT / "fixtures/topologies/llama31_8b_8p8d.yaml"
VARIANTS = ("", "_clusterip", "_discovery", "_llmd", "_lws", "_rdma")
VERSIONS = ("1.37", "1.34", "1.29")
CUSTOM = tuple(SPECS)
SEVERAL = ("-1", "-2", "-3", "-4", "-5", "-6")
"""Ends of names of pods that differ from their neighbours by the number alone."""


def manifests_of(variant):
    spec = read_topology(FILE, f"llama31_8b_8p8d{variant}")
    cluster = read_cluster(ROOT / "fixtures/clusters/h100_kubernetes.yaml")
    make = partial(_planned, spec, cluster)
    return rendered(make, fitting(spec, cluster))


def _planned(spec, cluster, site):
    return plan_deployment(spec, cluster, site)


def shown(found):
    """Return the objects as text; programs of ours have tests of their own."""
    parts = {}
    for each in found:
        if "cleaner.py" in each.get("data", ()):
            each = {**each, "data": {"cleaner.py": "..."}}
        if "load.zip" in each.get("binaryData", ()):
            each = {**each, "binaryData": {"load.zip": "..."}}
        if not each["metadata"]["name"].endswith(SEVERAL):
            parts[file_stem(each)] = each
    return json.dumps(parts, indent=1) + "\n"


@pytest.mark.parametrize("variant", VARIANTS)
def test_manifests_are_the_golden_ones(variant):
    path = GOLDEN / f"llama31_8b_8p8d{variant}.json"
    text = shown(manifests_of(variant))
    if os.environ.get("PD_GOLDEN_WRITE"):
        path.write_text(text)

    assert text == path.read_text(), "PD_GOLDEN_WRITE=1 writes what is right now"


def test_seventeen_pods_the_guard_and_the_load():
    found = [m["metadata"]["name"] for m in manifests_of("") if m["kind"] == "Pod"]

    assert len(found) == 19
    assert found[0].endswith("-guard")
    assert found[-1].endswith("-load")
    assert "vllm-router-llama31" in found


def test_only_the_number_tells_workers_of_a_role_apart():
    pods = {m["metadata"]["name"]: m for m in manifests_of("") if m["kind"] == "Pod"}
    base = "ms-llama31-llm-d-modelservice-decode-"

    def bare(number):
        text = json.dumps(pods[f"{base}{number}"])
        return text.replace(f"decode-{number}", "decode-N")

    assert {bare(number) for number in range(8)} == {bare(0)}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_valid_in_the_schema_of(version, variant):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import kubernetes_validate
        except ImportError:
            require("kube", "pip install kubernetes-validate")
    for each in pods_of_sets(manifests_of(variant)):
        alike = each["metadata"]["name"].endswith(SEVERAL)
        if each["kind"] not in CUSTOM and not alike:
            kubernetes_validate.validate(each, version, strict=True)


def pods_of_sets(found):
    """Yield every object, and templates of LeaderWorkerSets as the pods they make."""
    for each in found:
        yield each
        if each["kind"] == "LeaderWorkerSet":
            spec = each["spec"]["leaderWorkerTemplate"]
            for name in ("leader", "worker"):
                made = {"apiVersion": "v1", "kind": "Pod", **spec[f"{name}Template"]}
                yield {**made, "metadata": {**made["metadata"], "name": name}}


def test_workers_of_a_set_find_their_leader_by_its_variable():
    (first, _) = [m for m in manifests_of("_lws") if m["kind"] == "LeaderWorkerSet"]
    spec = first["spec"]["leaderWorkerTemplate"]
    words = spec["workerTemplate"]["spec"]["containers"][0]["command"]

    assert spec["size"] == 2
    assert words[words.index("--master-addr") + 1] == "$(LWS_LEADER_ADDRESS)"
    assert words[words.index("--node-rank") + 1] == "$(LWS_WORKER_INDEX)"
    assert "prefill-0-0" not in json.dumps(spec["workerTemplate"])


@pytest.mark.parametrize(("variant", "count"), [("_llmd", 2), ("_lws", 2)])
def test_custom_resources_fit_their_schemas(variant, count):
    jsonschema = pytest.importorskip("jsonschema")
    found = [m for m in manifests_of(variant) if m["kind"] in SPECS]

    assert len(found) == count
    for each in found:
        jsonschema.validate(each["spec"], SPECS[each["kind"]])
