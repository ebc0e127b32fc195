"""``pytest-pd evals run URL``: what is asked, what is left out, what is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pd.cli import main
from pytest_pd.command import evals_run
from pytest_pd.command.evals_run import (
    countable,
    first_model,
    sides_of,
    spec_of,
    tell,
)
from pytest_pd.errors import InvalidRun, SpecError
from pytest_pd.evals.baseline import Subject
from pytest_pd.evals.record import keep
from pytest_pd.probe import served
from pytest_pd.probe.http import Answer


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """Let no server be asked, and return the jobs that lm-eval would be given."""
    jobs: list[str] = []
    monkeypatch.setattr(evals_run, "version", lambda url: "1.0")
    monkeypatch.setattr(evals_run, "served_length", lambda url: None)
    monkeypatch.setattr(evals_run, "run", lambda job, tick: jobs.append(job.spec.name))
    return jobs


def score(model: str, out: Path) -> int:
    words = ["evals", "run", "http://b", "gsm8k", "--model", model]
    return main([*words, "--out", str(out)])


def test_a_folder_of_another_server_is_refused_before_lm_eval_runs(
    asked, tmp_path, capsys
):
    keep(tmp_path, Subject("a", "http://a", "unknown", "1.0"), "gsm8k", {"tasks": {}})

    assert score("b", tmp_path) == 2
    said = capsys.readouterr().err
    assert "holds scores of model 'a'" in said
    assert "--out" in said
    assert asked == []


def test_a_wrong_store_is_refused_before_lm_eval_runs(
    asked, tmp_path, monkeypatch, capsys
):
    store = tmp_path / "fixtures" / "evals" / "store" / "accepted.yaml"
    store.parent.mkdir(parents=True)
    store.write_text("accepted: 3\n")
    monkeypatch.chdir(tmp_path)

    assert score("b", tmp_path / "out") == 2
    assert "accepted.yaml" in capsys.readouterr().err
    assert asked == []


def test_choices_are_left_out_where_nobody_counts_tokens():
    said = []

    spec = countable(spec_of("shipped"), None, said.append)

    assert "pd_choice" not in spec.tasks
    assert "pd_recall" in spec.tasks
    assert "pd_choice" in said[0]
    assert "--tokenizer" in said[0]


def test_a_tokenizer_keeps_them():
    assert countable(spec_of("shipped"), "tok") == spec_of("shipped")


def test_nothing_but_choices_is_refused():
    with pytest.raises(SpecError, match="arc_challenge: choices") as caught:
        countable(spec_of("arc_challenge"), None)

    assert "--tokenizer" in caught.value.hint


def test_an_unknown_task_names_the_command_that_lists_them():
    with pytest.raises(SpecError) as caught:
        spec_of("no_such_task")

    assert "evals list" in caught.value.hint


def test_a_task_without_samples_is_told_and_bad(capsys):
    code = tell({"gsm8k": InvalidRun("0 of 50 samples")}, Path("out"))

    assert code == 1
    assert "gsm8k: not scored. 0 of 50 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "exact", "asked"),
    [("gsm8k", False, 3), ("gsm8k", True, 2), ("arc_challenge", False, 2)],
    ids=["noise has to be known", "no noise", "no raw answers compared"],
)
def test_the_other_server_is_asked_twice_where_its_noise_counts(word, exact, asked):
    sides = sides_of(spec_of(word), "http://a", "http://b", exact=exact)

    assert [side.url for side in sides] == ["http://a", "http://b", "http://b"][:asked]
    assert len({side.name for side in sides}) == asked


def test_exact_without_another_server_is_refused():
    with pytest.raises(SpecError, match="there is one"):
        sides_of(spec_of("gsm8k"), "http://a", "", exact=True)


@pytest.mark.parametrize(
    "said", ["<html>", "[]", '{"data": null}', '{"data": [{}]}', '{"data": []}']
)
def test_a_server_that_names_no_model_is_told_in_one_sentence(said, monkeypatch):
    answer = Answer(200, said.encode())
    monkeypatch.setattr(served, "request", lambda url, *, timeout_s: answer)

    with pytest.raises(SpecError, match="http://a/v1/models lists no model"):
        first_model("http://a")
