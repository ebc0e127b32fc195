"""What backends share before anything of a topology is started."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.provision.base import RunContext
from pytest_pd.provision.lease import held
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.spec.cluster import ClusterSpec


def refuse_images(backend: str, plans: Sequence[DeploymentPlan]) -> None:
    """Refuse containers where a backend starts programs.

    Raises:
        ProvisionError: a service of a plan names an image.
    """
    for plan in plans:
        for service in plan.services:
            if service.image:
                raise ProvisionError(
                    f"{plan.name}: {service.name!r} wants the image "
                    f"{service.image!r}; the {backend} backend starts programs.",
                    hint="leave the image out, or choose a cluster whose "
                    "backend is slurm or kubernetes",
                )


A = TypeVar("A")
Allocate = Callable[
    [ClusterSpec, DeploymentPlan, RunContext], AbstractContextManager[A]
]


@contextmanager
def looked_at(
    allocate: Allocate[A], cluster: ClusterSpec, plan: DeploymentPlan, run_dir: Path
) -> Iterator[A]:
    """Yield machines to look at, under a lease; nothing of it is left in `run_dir`."""
    run_id = make_run_id()
    run = RunDir(run_dir / f"preflight-{run_id}" / plan.name)
    run.create()
    context = run.context(run_id, cluster.lease_ttl_s)
    try:
        with (
            held(run.lease, context.lease_ttl_s),
            allocate(cluster, plan, context) as allocation,
        ):
            yield allocation
    finally:
        shutil.rmtree(run.path.parent, ignore_errors=True)
