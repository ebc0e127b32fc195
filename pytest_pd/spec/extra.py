"""Blocks of a topology beside its shape: placement, budgets, what is recorded."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pytest_pd.spec.base import Count, Model, Name, NodeGpus, Positive, Seconds
from pytest_pd.spec.evals import GateKind


class EvalSpec(Model):
    """An accuracy task that belongs to the topology.

    Attributes:
        task: Name in ``fixtures/evals``, whose file then says the rest, or of lm-eval.
        expected: Published score in 0..1; `sampling` must match its source.
        test: The one kind of gate that is taken, beside ``reference`` for `expected`.
    """

    task: Name
    shots: Count | None = None
    repeats: Positive = 1
    sampling: dict[str, Any] = Field(default_factory=dict)
    expected: float | None = Field(default=None, ge=0, le=1)
    test: GateKind | None = None


class IdentitySpec(Model):
    """What should be seen running; recorded, and nothing here compares it."""

    revision: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    image_digest: str | None = None


class SoftwareSpec(Model):
    """One program that is installed at start, by version, commit or wheel."""

    version: str | None = None
    commit: str | None = None
    wheel: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("version", "commit", "wheel") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"give one of version, commit, wheel; got {', '.join(given) or 'none'}"
            )
        return self


class SetupSpec(Model):
    """A script that runs on the nodes before any service; its hash is recorded."""

    script: str
    roles: tuple[Literal["prefill", "decode", "aggregated", "router"], ...] = ()


class ProfilingSpec(Model):
    """A profiler on one role; results made with it are kept out of comparisons."""

    tool: str
    role: Literal["prefill", "decode", "aggregated", "router"]
    start_step: Count = 0
    stop_step: Positive

    @model_validator(mode="after")
    def _steps_ascend(self) -> Self:
        if self.stop_step <= self.start_step:
            raise ValueError(
                f"stop_step {self.stop_step} is not after start_step {self.start_step}"
            )
        return self


class PlacementSpec(Model):
    """Where processes go.

    Attributes:
        pack: Fill a node before the next one is opened; else spread.
        roles_share_nodes: ``off``: prefill and decode never share a node;
            ``auto``: only if there are too few nodes; ``preferred``: whenever
            they fit; ``required``: refuse what does not fit on shared nodes.
        gpus_per_node: GPUs of a node when the plan is made without a cluster.
        same_nvlink_domain: Both roles should lie in one NVLink domain; recorded,
            and nothing here looks for it.
    """

    pack: bool = True
    roles_share_nodes: Literal["off", "auto", "preferred", "required"] = "auto"
    gpus_per_node: Annotated[NodeGpus, Field(ge=1)] | None = None
    same_nvlink_domain: bool = False


class BudgetSpec(Model):
    """Seconds for each stage; a stage without a number keeps its default.

    Attributes:
        queue_s, setup_s, tests_s, teardown_s: Counted in the plan's costs; a stage
            that takes longer goes on.
        ready_s: A service that is not ready by then ends the deployment.
        stall_s: So does one that shows no progress for so long.
        allocation_s: What setup, ready, tests and teardown must fit together.
    """

    queue_s: Seconds | None = None
    setup_s: Seconds | None = None
    ready_s: Seconds | None = None
    stall_s: Seconds | None = None
    tests_s: Seconds | None = None
    teardown_s: Seconds | None = None
    allocation_s: Seconds | None = None

    @model_validator(mode="after")
    def _stages_fit_the_allocation(self) -> Self:
        stages = {
            name: value
            for name in ("setup_s", "ready_s", "tests_s", "teardown_s")
            if (value := getattr(self, name)) is not None
        }
        total = sum(stages.values())
        if self.allocation_s is not None and total > self.allocation_s:
            parts = " + ".join(f"{name} {value:g}" for name, value in stages.items())
            raise ValueError(
                f"{parts} = {total:g} s do not fit allocation_s {self.allocation_s:g}"
            )
        return self
