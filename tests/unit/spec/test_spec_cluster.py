"""What a cluster file says about its nodes."""

from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_cluster


def cluster(tmp_path: Path, text: str) -> ClusterSpec:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return read_cluster(path)


def test_a_local_cluster_is_one_node_with_a_short_lease(tmp_path: Path) -> None:
    spec = cluster(tmp_path, "name: c\n")

    assert (spec.backend, spec.nodes, spec.lease_ttl_s) == ("local", 1, 5.0)


def test_a_lease_on_a_shared_file_system_is_long(tmp_path: Path) -> None:
    assert cluster(tmp_path, "name: c\nbackend: slurm\n").lease_ttl_s == 120.0


def test_an_inventory_says_how_many_nodes_there_are(tmp_path: Path) -> None:
    spec = cluster(
        tmp_path,
        "name: c\nbackend: ssh\ngpus_per_node: 8\n"
        "ssh: {hosts: [{host: a, name: alpha}, {host: b, gpus: 4}]}\n",
    )

    assert spec.nodes == 2
    assert spec.node_gpus == (8, 4)
    assert spec.node_names == {"node0": 0, "node1": 1, "alpha": 0, "b": 1}


def test_nodes_of_other_backends_are_alike(tmp_path: Path) -> None:
    spec = cluster(tmp_path, "name: c\nbackend: slurm\nnodes: 3\ngpus_per_node: 4\n")

    assert spec.node_gpus == (4, 4, 4)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("name: c\nbackend: ssh\n", "needs ssh.hosts"),
        (
            "name: c\nbackend: ssh\nnodes: 3\nssh: {hosts: [{host: a}]}\n",
            "nodes says 3 and ssh.hosts lists 1",
        ),
        ("name: c\nbackend: slrum\n", "slrum"),
        ("name: a b\n", "String should match pattern"),
        ("name: c\nslurm: {partion: x}\n", "unknown key 'slurm.partion'"),
        ("name: c\nenv: {AWS_SECRET: x}\n", "looks like a secret"),
    ],
)
def test_clusters_that_cannot_be(tmp_path: Path, text: str, fact: str) -> None:
    with pytest.raises(SpecError) as caught:
        cluster(tmp_path, text)

    assert fact in caught.value.fact
