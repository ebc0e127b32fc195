"""Which evals belong to a topology, and what is known of lm-eval's tasks by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pytest_pd.errors import SpecError
from pytest_pd.spec.document import read_document
from pytest_pd.spec.evals import EvalFileSpec, EvalGateSpec, GateKind, ReferenceSpec
from pytest_pd.spec.extra import EvalSpec
from pytest_pd.spec.file import build
from pytest_pd.spec.locate import Roots, catalogue, find_one
from pytest_pd.spec.topology import TopologySpec

SMALL = ("shipped", "public_rows")
"""Evals of topologies that name none and serve the recall model."""
LARGE = ("gsm8k",)
"""Evals of topologies that name none and serve another model on GPUs."""

METRICS: Mapping[str, tuple[str, str]] = {
    "gsm8k": ("exact_match", "flexible-extract"),
    "gsm8k_cot": ("exact_match", "flexible-extract"),
    "mmlu": ("acc", "none"),
    "mmlu_pro": ("exact_match", "custom-extract"),
    "hellaswag": ("acc_norm", "none"),
    "truthfulqa_mc1": ("acc", "none"),
    "truthfulqa_mc2": ("acc", "none"),
    "truthfulqa_gen": ("bleu_acc", "none"),
    "gpqa_main_zeroshot": ("acc_norm", "none"),
    "gpqa_diamond_zeroshot": ("acc_norm", "none"),
    "gpqa_diamond_cot_zeroshot": ("exact_match", "flexible-extract"),
    "ifeval": ("prompt_level_strict_acc", "none"),
    "arc_challenge": ("acc_norm", "none"),
}
"""Task of lm-eval to the metric and filter that is usually quoted."""

CHOICE = "prompt_logprobs"
"""The need of tasks whose choices are scored by the logprobs of a prompt."""
BY_CHOICE = ("acc", "acc_norm")
"""Metrics of tasks whose choices are scored by prompt logprobs."""
USUAL_GATES: Mapping[GateKind, float] = {
    "paired": 0.15,
    "identity": 0.25,
    "drift": 0.30,
}
"""Gates of a task that has no file, with the drop that 166 samples show."""


def read_eval(name: str, roots: Roots) -> EvalFileSpec:
    """Read the eval file that a name or path means.

    Raises:
        SpecError: there is none, or something in it is wrong.
    """
    found = find_one("evals", [name], roots)
    return build(read_document(found.path), EvalFileSpec)


def evals_of(
    topology: TopologySpec, facts: Mapping[str, bool], *, on_gpus: bool, roots: Roots
) -> dict[str, EvalFileSpec]:
    """Return the evals of a topology by name: its own, else by what it serves.

    Those whose ``needs`` the topology lacks are left out, unless it names them.

    Raises:
        SpecError: the topology names an eval twice, or one that is wrong.
    """
    if topology.evals:
        named = [
            read_eval(one, roots)
            if isinstance(one, str)
            else of_task(topology, one, roots)
            for one in topology.evals
        ]
        return _once(topology, named)
    usual = SMALL if facts.get("known_answers") else LARGE if on_gpus else ()
    found = [read_eval(name, roots) for name in usual]
    return {spec.name: spec for spec in found if not missing(spec.needs, facts)}


def _once(
    topology: TopologySpec, named: Iterable[EvalFileSpec]
) -> dict[str, EvalFileSpec]:
    found: dict[str, EvalFileSpec] = {}
    for spec in named:
        if spec.name in found:
            raise SpecError(
                f"{topology.name}: evals: {spec.name!r} stands twice.",
                hint="name it once; for other settings of the same task, write an eval "
                "file with a name of its own",
            )
        found[spec.name] = spec
    return found


def missing(needs: Iterable[str], facts: Mapping[str, bool]) -> tuple[str, ...]:
    """Return the needed facts that do not hold.

    Raises:
        SpecError: there is no such fact; names the nearest.
    """
    wanted = tuple(needs)
    for fact in wanted:
        if fact not in facts:
            raise SpecError.unknown("needs", fact, facts)
    return tuple(fact for fact in wanted if not facts[fact])


def of_task(topology: TopologySpec, wanted: EvalSpec, roots: Roots) -> EvalFileSpec:
    """Return the eval that a topology's own ``evals:`` entry spells out.

    The eval file of that name, where there is one, with what the entry says instead.

    Raises:
        SpecError: it asks for what only an eval file can say.
    """
    if wanted.repeats > 1:
        raise SpecError(
            f"{topology.name}: evals: {wanted.task}: repeats {wanted.repeats} is not "
            "supported.",
            hint="set repeats in a task file of your own and name it under include:",
        )
    has_file = wanted.task in catalogue("evals", roots)
    spec = read_eval(wanted.task, roots) if has_file else _usual(wanted.task)
    spec = spec.model_copy(update={"sampling": spec.sampling | wanted.sampling})
    return _with_expected(_with_tasks(spec, wanted), topology, wanted)


def _usual(name: str) -> EvalFileSpec:
    """Return the eval of a task of lm-eval that has no file."""
    gates = [{"kind": kind, "largest_drop": drop} for kind, drop in USUAL_GATES.items()]
    task: dict[str, object] = {**metric_of(name), "gates": gates}
    if task["metric"] in BY_CHOICE:
        task["needs"] = [CHOICE]
    return EvalFileSpec.model_validate(
        {"name": name, "offline": False, "tasks": {name: task}}
    )


def _with_tasks(spec: EvalFileSpec, wanted: EvalSpec) -> EvalFileSpec:
    """Return the eval with the shots and the gate that an entry names."""
    tasks = {}
    for name, task in spec.tasks.items():
        update: dict[str, object] = {}
        if wanted.shots is not None:
            update["shots"] = wanted.shots
        if wanted.test is not None:
            update["gates"] = (_gate(spec, name, wanted.test),)
        tasks[name] = task.model_copy(update=update)
    return spec.model_copy(update={"tasks": tasks})


def _gate(spec: EvalFileSpec, task: str, kind: GateKind) -> EvalGateSpec:
    return spec.gate(task, kind) or EvalGateSpec(kind=kind)


def _with_expected(
    spec: EvalFileSpec, topology: TopologySpec, wanted: EvalSpec
) -> EvalFileSpec:
    """Return the eval with the score that an entry states, before those of its file.

    Raises:
        SpecError: the eval has several tasks, and none is called as the entry.
    """
    if wanted.expected is None:
        return spec
    name = wanted.task if wanted.task in spec.tasks else next(iter(spec.tasks))
    if name != wanted.task and len(spec.tasks) > 1:
        raise SpecError(
            f"{topology.name}: evals: {wanted.task}: expected {wanted.expected:g} is "
            f"one score, and there are {len(spec.tasks)} tasks.",
            hint=f"state one for each under references: in {wanted.task}.yaml",
        )
    stated = ReferenceSpec(
        model=topology.model.served_name,
        task=name,
        score=wanted.expected,
        source=f"evals: expected: of topology {topology.name}",
    )
    task = spec.tasks[name]
    others = tuple(gate for gate in task.gates if gate.kind != "reference")
    gates = (*others, _gate(spec, name, "reference"))
    judged = task.model_copy(update={"gates": gates})
    return spec.model_copy(
        update={
            "tasks": {**spec.tasks, name: judged},
            "references": (stated, *spec.references),
        }
    )


def metric_of(task: str) -> dict[str, str]:
    """Return metric and filter of a task of lm-eval, of its group if it has none.

    Raises:
        SpecError: the task is not in `METRICS`.
    """
    names = [name for name in METRICS if task == name or task.startswith(f"{name}_")]
    if not names:
        raise SpecError(
            f"Which metric of {task!r} counts is not known.",
            hint="pytest-pd evals list shows what there is; for another, name metric "
            "and filter in an eval file, as fixtures/evals/gsm8k.yaml",
        )
    metric, filter_name = METRICS[max(names, key=len)]
    return {"metric": metric, "filter": filter_name}
