"""The only reader of specification files: a path to checked, frozen models."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from pytest_pd.errors import SpecError
from pytest_pd.spec.base import Model
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.document import Document, parse_document, read_document
from pytest_pd.spec.explain import explain
from pytest_pd.spec.lock import is_lock, unlock
from pytest_pd.spec.topology import TopologySpec
from pytest_pd.spec.variant import unfold
from pytest_pd.spec.workload import WorkloadSpec

__all__ = [
    "Document",
    "build",
    "parse_document",
    "read_cluster",
    "read_document",
    "read_topologies",
    "read_topology",
    "read_workload",
]

M = TypeVar("M", bound=Model)


def build(document: Document, model: type[M]) -> M:
    """Check a document against a model.

    Raises:
        SpecError: every wrong key or value, each with file, line and path, and
            for an unknown key the nearest known one.
    """
    if not isinstance(document.data, dict):
        raise SpecError(f"{document.path} holds no mapping of keys to values.")
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        raise explain(error, model, document) from None


def read_topologies(path: Path | str) -> tuple[TopologySpec, ...]:
    """Read every topology of one file: its base, variants and matrix points."""
    documents = unfold(_document(Path(path), "topology"))
    return tuple(build(document, TopologySpec) for document in documents.values())


def read_topology(path: Path | str, name: str | None = None) -> TopologySpec:
    """Read one topology of a file: the base, or the variant called `name`.

    A lock file holds one topology, which any name means.

    The file's own name stands for its base too, whatever its ``name:`` says.

    Raises:
        SpecError: the file has no such topology, or something in it is wrong.
    """
    path = Path(path)
    document = _document(path, "topology")
    documents = unfold(document)
    base = name in (None, path.stem) or document.path.name.endswith(".lock.yaml")
    wanted = next(iter(documents)) if base else str(name)
    if wanted not in documents:  # catalogues call a file's base by its stem
        documents = unfold(document, base_name=path.stem)
    if wanted not in documents:
        raise SpecError.unknown(f"{path}: topology", wanted, documents)
    return build(documents[wanted], TopologySpec)


def read_cluster(path: Path | str) -> ClusterSpec:
    """Read one cluster file, or the cluster of a lock file."""
    return build(_document(Path(path), "cluster"), ClusterSpec)


def read_workload(path: Path | str) -> WorkloadSpec:
    """Read one workload file."""
    return build(read_document(Path(path)), WorkloadSpec)


def _document(path: Path, part: str) -> Document:
    document = read_document(path)
    return unlock(document, part) if is_lock(document) else document
