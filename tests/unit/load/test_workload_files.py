"""Workload files: strict, whole, and what they unfold to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.load.point import Arrivals
from pytest_pd.load.prompts import PromptSource
from pytest_pd.load.tokenizer import find_tokenizer
from pytest_pd.load.workload import (
    lengths_of,
    parse_workload,
    prompts_for,
    read_workload,
    sweep,
)

ROOT = Path(__file__).parents[3]
SHIPPED = sorted(path.stem for path in (ROOT / "fixtures/workloads").glob("*.yaml"))
BASE = "name: x\ninput_tokens: 20\n"


def test_there_are_workloads():
    assert "local_sweep" in SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_workload_unfolds_and_can_be_fed(name):
    spec = read_workload(ROOT / f"fixtures/workloads/{name}.yaml")
    source = PromptSource(find_tokenizer(ROOT / "fixtures/models/tiny"), name)

    points = list(sweep(spec))

    assert spec.name == name
    assert points
    point = min(points, key=lambda p: p.load.requests or 0)
    prompts = prompts_for(spec, point, source)
    assert len(prompts) == point.load.warmup + point.load.requests


def test_levels_add_points():
    spec = parse_workload(
        BASE + "concurrency: [1, {value: 2, level: standard}, {value: 4, level: full}]"
    )

    labels = {
        level: [p.label for p in sweep(spec, level)]
        for level in ("quick", "standard", "full")
    }

    assert labels == {
        "quick": ["c1"],
        "standard": ["c1", "c2"],
        "full": ["c1", "c2", "c4"],
    }
    with pytest.raises(SpecError, match="level 'fast' is not known"):
        list(sweep(spec, "fast"))


def test_closed_points_scale_with_their_concurrency():
    (point,) = sweep(
        parse_workload(
            BASE
            + "concurrency: 8\nprompts_per_concurrency: 5\nwarmup_per_concurrency: 3"
        )
    )

    assert (point.load.requests, point.load.warmup) == (40, 24)
    assert point.load.arrivals is Arrivals.CLOSED


def test_open_points_carry_the_process():
    text = "rate_per_s: [2.5]\narrivals: gamma\nburstiness: 0.5\nrequests: 30"

    (point,) = sweep(parse_workload(BASE + text))

    assert point.label == "r2.5"
    assert point.load.arrivals is Arrivals.GAMMA
    assert (point.load.rate_per_s, point.load.burstiness) == (2.5, 0.5)


def test_shared_and_unique_tokens_add_up():
    spec = parse_workload(
        "name: x\nisl_shared: 12\nisl_unique: 20\nshared_prefixes: 2\nconcurrency: 2"
    )
    source = PromptSource(find_tokenizer(ROOT / "fixtures/models/tiny"), "s")
    (point,) = sweep(spec)

    prompts = prompts_for(spec, point, source)

    assert {p.input_tokens for p in prompts} == {32}


def test_points_of_one_sweep_have_disjoint_prompts():
    spec = parse_workload(BASE + "concurrency: [2, 4]")
    source = PromptSource(find_tokenizer(ROOT / "fixtures/models/tiny"), "s")

    first, second = (prompts_for(spec, point, source) for point in sweep(spec))

    assert not {p.text for p in first} & {p.text for p in second}


def test_lengths_come_from_the_seed_and_texts_from_the_run():
    def sizes(seed, salt, warmed=0):
        spec = parse_workload(
            f"{BASE}concurrency: [2]\nlength_ratio: 0.5\nseed: {seed}"
        )
        source = PromptSource(find_tokenizer(ROOT / "fixtures/models/tiny"), salt)
        source.take(warmed, lengths_of(spec))
        prompts = prompts_for(spec, next(sweep(spec)), source)
        return [(p.input_tokens, p.output_tokens) for p in prompts], prompts[0].text

    first, again = sizes(1, "run 1"), sizes(1, "run 2", warmed=8)

    assert len(set(first[0])) > 1
    assert first[0] == again[0] != sizes(2, "run 1")[0]
    assert first[1] != again[1]


def test_trace_workload_reads_its_file(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"timestamp": 0, "input_length": 30, "output_length": 4, "hash_ids": [7]}\n'
    )
    spec = parse_workload(f"name: x\nkind: trace\ndataset: {{path: {path}}}")
    source = PromptSource(find_tokenizer(ROOT / "fixtures/models/tiny"), "s")
    (point,) = sweep(spec)

    (prompt,) = prompts_for(spec, point, source)

    assert point.load.arrivals is Arrivals.TRACE
    assert (prompt.at_s, prompt.input_tokens, prompt.output_tokens) == (0.0, 30, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE, "give concurrency, rate_per_s"),
        (BASE + "concurrency: 0", "concurrency"),
        (BASE + "concurrency: 1\ninput_token: 3", "input_token"),
        (BASE + "isl_unique: 5\nconcurrency: 1", "either input_tokens"),
        (BASE + "rate_per_s: 3", "rate has no end"),
        (BASE + "rate_per_s: .inf\nrequests: 3", "rate_per_s"),
        (BASE + "concurrency: 1\nrequests: 3\nduration_s: 4", "not both"),
        (BASE + "concurrency: 1\nturns: 3", "multi_turn"),
        (BASE + "kind: multi_turn\nconcurrency: 1", "multi_turn"),
        ("name: x\nkind: trace", "needs a dataset"),
        (BASE + "concurrency: 1\ndataset: {path: t}", "takes no dataset"),
    ],
)
def test_what_makes_no_sense_is_refused(text, message):
    with pytest.raises(SpecError, match=message):
        parse_workload(text)


def test_repeated_points_have_labels_of_their_own():
    spec = parse_workload(
        "{name: w, input_tokens: 9, concurrency: [1, 2], repeats: 3, requests: 4}"
    )
    labels = [point.label for point in sweep(spec)]
    assert labels == ["c1", "c1-2", "c1-3", "c2", "c2-2", "c2-3"]


@pytest.mark.parametrize(
    ("tokens", "streams", "prompts"),
    [(20, 2, 100_000), (8192, 2, 4096), (1 << 20, 16, 64)],
    ids=["as many as can be used", "256 MiB", "four for each stream"],
)
def test_point_limited_by_time_has_as_many_prompts_as_fit(
    tokens, streams, prompts, monkeypatch
):
    spec = parse_workload(
        f"name: x\ninput_tokens: {tokens}\nconcurrency: {streams}\n"
        "duration_s: 3600\nwarmup_per_concurrency: 0\n"
    )
    source = PromptSource(find_tokenizer(ROOT / "fixtures/models/tiny"), "s")
    monkeypatch.setattr(PromptSource, "take", lambda self, count, lengths: [0] * count)
    (point,) = sweep(spec)

    assert len(prompts_for(spec, point, source)) == prompts
