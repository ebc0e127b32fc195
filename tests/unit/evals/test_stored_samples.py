"""Samples of aggregated serving, stored for P/D that has nobody else to ask."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import SpecError
from pytest_pd.evals.baseline import Subject
from pytest_pd.evals.judge import AGGREGATED, PD
from pytest_pd.evals.record import keep
from pytest_pd.evals.runner import Job, Side, samples_of
from pytest_pd.evals.stored import find_stored
from pytest_pd.spec.locate import Roots

SUBJECT = Subject("kimi/k2", "k2_aggregated", "gb200", "vllm 0.32.0")


@pytest.fixture
def run_dir(tmp_path, lay_out, row) -> Path:
    """A run of an aggregated topology with two samples."""
    topology = tmp_path / "run" / "k2_aggregated"
    lay_out(topology / "evals" / "e" / "pd" / "t", {"t": [row(0), row(1)]})
    result = {"scores": {"pd": 1.0}, "gates": {}}
    keep(topology, SUBJECT, "e", {"tasks": {"t": result}})
    return tmp_path / "run"


@pytest.fixture
def roots(tmp_path) -> Roots:
    return Roots(tmp_path / "project")


def store(run_dir: Path, roots: Roots) -> int:
    into = roots.project / "fixtures" / "evals"
    return main(["evals", "store", str(run_dir), "--into", str(into)])


def test_stored_samples_are_found_by_model_and_engine(run_dir, roots):
    assert store(run_dir, roots) == 0

    found = find_stored(roots, replace(SUBJECT, topology="k2_2p1d"), "e")

    assert (found / "t" / "requests.jsonl").is_file()
    assert json.loads((found / "subject.json").read_text())["topology"] == (
        "k2_aggregated"
    )


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"engine": "vllm 0.33.0"}], ids=["model", "engine"]
)
def test_samples_of_something_else_are_not_taken(run_dir, roots, change):
    store(run_dir, roots)

    with pytest.raises(SpecError, match="No samples of aggregated") as caught:
        find_stored(roots, replace(SUBJECT, **change), "e")

    assert "pytest-pd evals store RUN" in caught.value.hint


def test_they_stand_in_for_the_aggregated_side(
    run_dir, roots, tmp_path, make_eval, lay_out, row
):
    store(run_dir, roots)
    lay_out(tmp_path / "out" / "pd" / "t", {"t": [row(0, 0.0), row(1)]})
    job = Job(
        make_eval("paired"),
        "kimi/k2",
        None,
        (Side(PD, "http://router"),),
        tmp_path / "out",
        stored={AGGREGATED: find_stored(roots, SUBJECT, "e")},
    )

    sides = samples_of(job, "t")

    assert [sample.score for sample in sides[PD]] == [0.0, 1.0]
    assert [sample.score for sample in sides[AGGREGATED]] == [1.0, 1.0]


def test_a_run_of_pd_is_no_aggregated_one(run_dir, roots, capsys):
    result = {"scores": {"pd": 1.0, "aggregated": 1.0}, "gates": {}}
    keep(run_dir / "k2_aggregated", SUBJECT, "e", {"tasks": {"t": result}})

    assert store(run_dir, roots) == 2
    assert "prefill and decode" in capsys.readouterr().err


def test_storing_again_replaces(run_dir, roots):
    store(run_dir, roots)
    (find_stored(roots, SUBJECT, "e") / "old").touch()

    store(run_dir, roots)

    assert not (find_stored(roots, SUBJECT, "e") / "old").exists()
