"""What an eval file can say: tasks of lm-eval, and the gates their scores must pass."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pytest_pd.spec.base import Args, Count, Model, Name, Positive, Seconds

Share = Annotated[float, Field(ge=0, le=1)]
Chance = Annotated[float, Field(gt=0, lt=1)]
GateKind = Literal["paired", "identity", "drift", "reference"]


class EvalGateSpec(Model):
    """One gate of one task.

    Attributes:
        kind: ``paired`` (against aggregated, same samples), ``identity`` (raw
            answers at temperature 0), ``drift`` (last third of the requests against
            the first), ``reference`` (a published or accepted score).
        tolerance: Drop that is no alarm however sure it is. None: 0, and for
            ``identity`` where aggregated is asked twice
            `pytest_pd.evals.identity.FLOOR_TOLERANCE`.
        largest_drop: The gate cannot tell unless it could have seen this drop.
    """

    kind: GateKind
    tolerance: Share | None = None
    largest_drop: Share = 0.10


class EvalTaskSpec(Model):
    """One task or group of lm-eval.

    Attributes:
        metric: Score per sample that is judged; `filter` picks among lm-eval's
            filters of the answer.
        limit: First samples of each task; None takes all.
        shots: Examples in front of the question; None leaves it to the task.
        needs: Facts of the topology, as in ``pd_needs``, without which this task
            is left out and its tests are skipped.
    """

    metric: str = "exact_match"
    filter: str = "none"
    limit: Positive | None = None
    shots: Count | None = None
    needs: Args = ()
    gates: tuple[EvalGateSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _gates_differ(self) -> Self:
        kinds = [gate.kind for gate in self.gates]
        if len(set(kinds)) != len(kinds):
            raise ValueError("a kind of gate stands twice; one of each is enough")
        return self


class ReferenceSpec(Model):
    """A score that somebody stated.

    Attributes:
        model: Name under which the model is served, or name of its folder.
        source: Who measured it, and how; `date` says when.
    """

    model: str
    task: str
    score: Share
    source: str = Field(min_length=3)
    date: datetime.date | None = None


class EvalFileSpec(Model):
    """Tasks that run together in one lm-eval process per side.

    Attributes:
        api: ``completions`` or ``chat``; multiple-choice tasks need the first.
        needs: Facts of the topology, as in ``pd_needs``, without which it is
            not run.
        include: Folder of task files of one's own; its generated data comes with
            them. Other names are lm-eval's.
        data: Folder with datasets laid out as on the hub
            (``openai/gsm8k/README.md``, ...), which are taken instead of the hub's.
        offline: Nothing is asked of the hub.
        seed: Of generated data, and of lm-eval.
        model_args: Further ``--model_args`` of lm-eval (``add_bos_token: true``).
        sampling: Generation arguments instead of the task's (``temperature: 0.6``).
        against: The aggregated side of a P/D topology: ``worker`` asks one of its own
            that does both phases; ``stored`` takes the samples of an earlier run of
            aggregated serving (``pytest-pd evals store``).
        logprobs: Ask for the logprob of each answer token, to size divergences.
        alpha: Chance that a run in which nothing is lost fails any gate of this
            file; shared out evenly among its gates.
        power: Chance with which a gate's detectable drop is seen.
        budget_s: Seconds for all sides together.
    """

    name: Name
    description: str = ""
    api: Literal["completions", "chat"] = "completions"
    needs: Args = ()
    include: str | None = None
    data: str | None = None
    offline: bool = True
    concurrency: Positive = 4
    seed: Count = 0
    model_args: dict[str, Any] = Field(default_factory=dict)
    sampling: dict[str, Any] = Field(default_factory=dict)
    against: Literal["worker", "stored"] = "worker"
    logprobs: bool = True
    alpha: Chance = 0.05
    power: Chance = 0.8
    level: Literal["quick", "standard", "full"] = "standard"
    budget_s: Seconds = 900.0
    tasks: dict[str, EvalTaskSpec] = Field(min_length=1)
    references: tuple[ReferenceSpec, ...] = ()

    @property
    def alpha_each(self) -> float:
        """Chance of a false alarm that each gate may have (Bonferroni)."""
        return self.alpha / sum(len(task.gates) for task in self.tasks.values())

    def gate(self, task: str, kind: str) -> EvalGateSpec | None:
        """Return the gate of `kind` that a task has, or None."""
        gates = self.tasks[task].gates
        return next((gate for gate in gates if gate.kind == kind), None)
