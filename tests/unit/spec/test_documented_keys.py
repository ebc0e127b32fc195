"""The reference pages name every key, and what they show can be read."""

import re
from pathlib import Path
from typing import Any

import pytest

from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.document import parse_document
from pytest_pd.spec.explain import known_keys
from pytest_pd.spec.file import build, read_cluster, read_topology
from pytest_pd.spec.topology import TopologySpec

PROJECT = Path(__file__).parents[3]
DOCS = PROJECT / "docs" / "reference"
PLACES: list[tuple[Any, ...]] = [
    (),
    ("model",),
    ("engine",),
    ("kv_transfer",),
    ("prefill",),
    ("prefill", "workers", 0),
    ("prefill", "resources"),
    ("router",),
    ("router", "session_affinity"),
    ("control_plane",),
    ("placement",),
    ("budgets",),
    ("slo",),
    ("identity",),
    ("evals", 0),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_every_key_of_a_topology_is_documented(place: tuple[Any, ...]) -> None:
    words = set(re.findall(r"\w+", (DOCS / "topology-file.md").read_text()))

    assert known_keys(TopologySpec, place) - words == set()


def test_every_key_of_a_cluster_is_documented() -> None:
    words = set(re.findall(r"`(\w+)`", (DOCS / "cluster-file.md").read_text()))

    assert set(ClusterSpec.model_fields) - words == set()


def block(page: str) -> str:
    text = (DOCS / page).read_text().split("```yaml\n")[1]
    return text.split("```")[0]


def test_the_first_example_of_each_page_is_the_shipped_file() -> None:
    topology = build(parse_document(block("topology-file.md"), Path("x")), TopologySpec)
    cluster = build(parse_document(block("cluster-file.md"), Path("x")), ClusterSpec)

    assert topology == read_topology(PROJECT / "fixtures/topologies/local_1p1d.yaml")
    assert cluster == read_cluster(PROJECT / "fixtures/clusters/local.yaml")
