"""The plan of a run as plain data in its folder, so that a run id restores it."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.lock import lock_text
from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.provision.launcher import write_json
from pytest_pd.provision.rundir import RunDir
from pytest_pd.spec.cluster import ClusterSpec
from pytest_pd.spec.topology import TopologySpec

T = TypeVar("T")


def write_plan(run: RunDir, plan: DeploymentPlan) -> None:
    """Write the plan as it was started."""
    write_json(str(run.plan), dataclasses.asdict(plan))


def write_files(run: RunDir, plan: DeploymentPlan) -> None:
    """Write what services read from the run directory: their configurations.

    Raises:
        ProvisionError: a path leads out of the run directory.
    """
    for service in plan.services:
        for name, text in service.files.items():
            path = run.path / name
            if not path.resolve().is_relative_to(run.path.resolve()):
                raise ProvisionError(
                    f"{service.name} wants to write {name!r}, "
                    "outside the run directory."
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def write_lock(
    run: RunDir, plan: DeploymentPlan, topology: TopologySpec, cluster: ClusterSpec
) -> None:
    """Write ``plan.lock.yaml``, from which ``--topology`` makes the same plan."""
    run.plan_lock.write_text(lock_text(plan, topology, cluster), encoding="utf-8")


def read_plan(run: RunDir) -> DeploymentPlan:
    """Return the plan that was started in this run.

    Raises:
        ProvisionError: there is none, or it is of another version of pytest-pd.
    """
    try:
        return build(DeploymentPlan, json.loads(run.plan.read_text()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProvisionError(
            f"The plan of the run cannot be read: {error}.",
            hint="was it started by another version of pytest-pd?",
            where=run.plan,
        ) from error


def build(kind: type[T], record: Mapping[str, Any]) -> T:
    """Build a dataclass from what `dataclasses.asdict` and JSON made of it."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: convert(hints[name], value) for name, value in record.items()})


def convert(hint: Any, value: Any) -> Any:
    """Turn one JSON value into what the annotation says."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return convert(next(arg for arg in args if arg is not type(None)), value)
    if origin is tuple:
        inner = [args[0]] * len(value) if args[-1] is Ellipsis else args
        return tuple(convert(arg, item) for arg, item in zip(inner, value, strict=True))
    if origin is not None:
        return dict(value) if isinstance(value, dict) else value
    if dataclasses.is_dataclass(hint):
        return build(hint, value)  # type: ignore[arg-type]
    return hint(value) if isinstance(hint, enum.EnumType) else value
