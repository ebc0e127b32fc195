"""From the words on the command line to topologies that are up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plugin.selection import (
    DEFAULT,
    Selected,
    can_match,
    hardware_in,
)
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.file import read_cluster, read_topologies
from pytest_pd.spec.locate import Found, Roots, catalogue, find
from pytest_pd.spec.topology import TopologySpec

if TYPE_CHECKING:
    from pytest_pd.plugin.session import PdSession
    from pytest_pd.provision.deploy import Deployment


@dataclass(frozen=True, slots=True)
class Choice:
    """What a session runs on.

    Attributes:
        specs: Topology id to specification, in the order of `selected`.
        cluster: Where they run.
    """

    selected: tuple[Selected, ...]
    specs: Mapping[str, TopologySpec]
    cluster: ClusterSpec

    def id_of(self, spec: TopologySpec) -> str:
        """Return the id under which `spec` was selected."""
        return next(name for name, each in self.specs.items() if each is spec)


def choose(config: pytest.Config) -> Choice:
    """Read what the options, the ini file and the environment ask for.

    Raises:
        SpecError: an unknown name, a file that cannot be read, hardware that
            the cluster has not.
    """
    roots = Roots(config.rootpath, tuple(config.getini("pd_topology_path")))
    cluster = _cluster(config, roots)
    selected, specs = [], {}
    for found in _wanted(config, roots):
        for spec in read_topologies(found.path):
            chosen = _select(found, spec, cluster)
            selected.append(chosen)
            specs[chosen.id] = spec
    return Choice(tuple(selected), specs, cluster)
