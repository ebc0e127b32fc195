"""Every topology and cluster that we ship can be read and is called as its file."""

from pathlib import Path

import pytest

from pytest_pd.spec.file import read_cluster, read_topologies
from pytest_pd.spec.locate import SHIPPED

TOPOLOGIES = sorted((SHIPPED / "topologies").glob("*.yaml"))
CLUSTERS = sorted((SHIPPED / "clusters").glob("*.yaml"))


@pytest.mark.parametrize("path", TOPOLOGIES, ids=lambda path: path.stem)
def test_topology_is_called_as_its_file(path: Path) -> None:
    assert {spec.name.startswith(path.stem) for spec in read_topologies(path)} == {True}


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.stem)
def test_cluster_is_called_as_its_file(path: Path) -> None:
    assert read_cluster(path).name == path.stem
