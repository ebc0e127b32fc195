"""Eval files: what ships is sound, what is wrong is refused, whose evals run where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from pytest_pd.errors import SpecError
from pytest_pd.evals.catalogue import evals_of, metric_of, of_task, read_eval
from pytest_pd.evals.evaluate import fitting
from pytest_pd.spec.document import parse_document
from pytest_pd.spec.evals import EvalFileSpec, EvalGateSpec, EvalTaskSpec
from pytest_pd.spec.extra import EvalSpec
from pytest_pd.spec.file import build
from pytest_pd.spec.locate import HERE, catalogue
from pytest_pd.spec.topology import TopologySpec

GATE = {"kind": "paired"}
KNOWS = {"known_answers": True, "prompt_logprobs": False}
KNOWS_NOT = {"known_answers": False, "prompt_logprobs": True}
ONE = {"tasks": {"t": {"gates": [GATE]}}}


@pytest.fixture
def make_topology():
    def _make(*evals) -> TopologySpec:
        return TopologySpec.model_validate(
            {
                "name": "one",
                "hardware": "cpu",
                "model": {"path": "m", "served_name": "kimi"},
                "engine": {"kind": "reference"},
                "aggregated": {"replicas": 1},
                "evals": evals,
            }
        )

    return _make


@pytest.mark.parametrize("name", sorted(catalogue("evals", HERE)))
def test_shipped_files_are_sound(name):
    spec = read_eval(name, HERE)

    assert spec.name == name
    assert 0 < spec.alpha_each <= spec.alpha
    for task in spec.tasks.values():
        assert task.gates


def test_every_shipped_task_has_a_stated_score():
    spec = read_eval("shipped", HERE)

    stated = {entry.task for entry in spec.references if entry.model == "tiny"}
    assert stated == set(spec.tasks)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"tasks": {}}, "at least 1 item", id="no-task"),
        pytest.param({"tasks": {"t": {"gates": []}}}, "at least 1 item", id="no-gate"),
        pytest.param(
            {"tasks": {"t": {"gates": [GATE, GATE]}}}, "stands twice", id="gate-twice"
        ),
        pytest.param(
            {"tasks": {"t": {"gates": [{"kind": "t-test"}]}}}, "paired", id="unknown"
        ),
        pytest.param(
            {"tasks": {"t": {"gates": [GATE]}}, "alpha": 0},
            "greater than 0",
            id="alpha",
        ),
    ],
)
def test_wrong_files_are_refused(content, message):
    with pytest.raises(ValidationError, match=message):
        EvalFileSpec.model_validate({"name": "e", **content})


def test_recall_models_get_the_shipped_tasks(make_topology):
    found = evals_of(make_topology(), KNOWS, on_gpus=True, roots=HERE)

    assert list(found) == ["shipped", "public_rows"]


def test_other_models_on_gpus_get_gsm8k_and_on_cpu_nothing(make_topology):
    topology = make_topology()

    assert list(evals_of(topology, KNOWS_NOT, on_gpus=True, roots=HERE)) == ["gsm8k"]
    assert not evals_of(topology, KNOWS_NOT, on_gpus=False, roots=HERE)


def test_a_topology_names_its_own(make_topology):
    topology = make_topology("hellaswag", {"task": "gsm8k", "expected": 0.94})

    found = evals_of(topology, KNOWS_NOT, on_gpus=False, roots=HERE)

    assert list(found) == ["hellaswag", "gsm8k"]
    (reference,) = found["gsm8k"].references
    assert (reference.model, reference.score) == ("kimi", 0.94)
    assert found["gsm8k"].gate("gsm8k", "reference")


def test_one_test_is_taken_where_one_is_named(make_topology):
    wanted = EvalSpec(task="mmlu", shots=5, test="paired", sampling={"temperature": 1})

    spec = of_task(make_topology(), wanted, HERE)

    assert [gate.kind for gate in spec.tasks["mmlu"].gates] == ["paired"]
    assert spec.tasks["mmlu"].shots == 5
    assert spec.tasks["mmlu"].needs == ("prompt_logprobs",)
    assert spec.sampling == {"temperature": 1}


def test_an_entry_with_settings_starts_from_the_file_of_its_name(make_topology):
    wanted = EvalSpec(task="gsm8k", shots=8, expected=0.94, sampling={"top_p": 0.9})
    file = read_eval("gsm8k", HERE)

    spec = of_task(make_topology(), wanted, HERE)

    (task,) = spec.tasks.values()
    assert (spec.budget_s, spec.concurrency) == (file.budget_s, file.concurrency)
    assert (task.limit, task.shots) == (file.tasks["gsm8k"].limit, 8)
    assert set(task.gates) == set(file.tasks["gsm8k"].gates)
    assert spec.sampling == {"top_p": 0.9}
    assert spec.references[0].score == 0.94


def test_a_task_without_a_file_has_the_usual_gates(make_topology):
    spec = of_task(make_topology(), EvalSpec(task="mmlu_virology", expected=0), HERE)

    kinds = [gate.kind for gate in spec.tasks["mmlu_virology"].gates]
    assert kinds == ["paired", "identity", "drift", "reference"]
    assert spec.references[0].score == 0


def test_one_score_for_an_eval_of_several_tasks_is_refused(make_topology):
    with pytest.raises(SpecError, match=r"expected 0\.9 is one score"):
        of_task(make_topology(), EvalSpec(task="shipped", expected=0.9), HERE)


def test_an_eval_that_stands_twice_is_refused(make_topology):
    topology = make_topology("gsm8k", {"task": "gsm8k", "shots": 5})

    with pytest.raises(SpecError, match="evals: 'gsm8k' stands twice"):
        evals_of(topology, KNOWS_NOT, on_gpus=True, roots=HERE)


def test_repeats_are_refused_with_what_to_do(make_topology):
    with pytest.raises(SpecError, match="repeats 4") as caught:
        of_task(make_topology(), EvalSpec(task="gsm8k", repeats=4), HERE)

    assert "task file of your own" in caught.value.hint


@pytest.mark.parametrize(
    ("task", "metric", "filter_name"),
    [
        ("gsm8k", "exact_match", "flexible-extract"),
        ("mmlu", "acc", "none"),
        ("mmlu_virology", "acc", "none"),
        ("mmlu_pro", "exact_match", "custom-extract"),
        ("gpqa_diamond_zeroshot", "acc_norm", "none"),
    ],
)
def test_usual_metrics(task, metric, filter_name):
    assert metric_of(task) == {"metric": metric, "filter": filter_name}


def test_a_task_whose_metric_is_unknown_says_what_to_write():
    with pytest.raises(SpecError, match="metric of 'swag'") as caught:
        metric_of("swag")

    assert "eval file" in caught.value.hint


def test_tasks_that_need_what_is_not_there_are_left_out():
    spec, left_out = fitting(read_eval("shipped", HERE), KNOWS)

    assert left_out == {"pd_choice": ("prompt_logprobs",)}
    assert "pd_choice" not in spec.tasks
    assert "pd_recall" in spec.tasks


def test_an_eval_of_which_nothing_is_left_is_refused():
    with pytest.raises(SpecError, match="Every task"):
        fitting(read_eval("mmlu", HERE), KNOWS)


@pytest.mark.parametrize("model", [EvalFileSpec, EvalTaskSpec, EvalGateSpec])
def test_every_key_is_documented(model):
    page = Path(__file__).parents[3] / "docs" / "reference" / "eval-file.md"
    words = set(re.findall(r"\w+", page.read_text(encoding="utf-8")))

    assert set(model.model_fields) - words == set()


def test_the_example_of_the_page_is_the_shipped_file():
    page = Path(__file__).parents[3] / "docs" / "reference" / "eval-file.md"
    block = page.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]

    shown = build(parse_document(block, page), EvalFileSpec)

    assert shown == read_eval("gsm8k", HERE)


def test_a_need_that_is_no_fact_names_the_nearest():
    spec = EvalFileSpec.model_validate(
        {"name": "e", "tasks": {"t": {"gates": [GATE], "needs": ["known_answer"]}}}
    )

    with pytest.raises(SpecError, match="'known_answer' is not known") as caught:
        fitting(spec, KNOWS)

    assert "'known_answers'" in caught.value.hint
