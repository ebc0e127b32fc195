"""What the fixtures make of a load result: requests of others, and how far it is."""

from __future__ import annotations

import pytest

from pytest_pd.fixtures import load as fixtures
from pytest_pd.load.engine import Counters
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt, PromptSource
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target
from pytest_pd.load.tokenizer import TokenIds
from pytest_pd.load.workload import prompts_for, sweep
from pytest_pd.spec.workload import WorkloadSpec


class Text:
    """Stands for a tokenizer of text."""

    name, lead, words = "text", "", [f" w{k}" for k in range(300)]

    def count(self, text: str) -> int:
        return len(text.split())


TEXT = PromptSource(Text(), "t")
IDS = PromptSource(TokenIds(), "i")


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({}, []),
        ({"endpoint": "chat"}, [True]),
        ({"kind": "multi_turn", "turns": 2}, [False]),
    ],
)
def test_what_cannot_be_token_ids_has_a_source_of_text(fields, asked):
    workload = WorkloadSpec(name="w", input_tokens=9, concurrency=[1], **fields)
    made = []

    def make_text(is_chat):
        made.append(is_chat)
        return TEXT

    source = fixtures.source_of(workload, IDS, make_text)

    assert made == asked
    assert prompts_for(workload, next(sweep(workload)), source)
    assert fixtures.source_of(workload, TEXT, make_text) is TEXT


class Served:
    """Stands for a window in which the services counted so many requests."""

    def __init__(self, count: int) -> None:
        self.count = count

    def foreign_requests(self, own: int) -> int:
        return max(0, self.count - own)


def test_prompts_that_were_not_sent_hide_no_requests_of_others(truth):
    point = LoadPoint(duration_s=0.3, warmup=1, min_waves=1)
    prompts = [Prompt(text=f"a {k}", output_tokens=4) for k in range(1000)]
    result = run_load(Target(url=truth.url), point, prompts)
    sent = result.counts()["ok"] + 1

    assert fixtures.undisturbed(result, Served(sent)).is_valid
    disturbed = fixtures.undisturbed(result, Served(sent + 3))
    assert disturbed.reasons == ("3 requests of others were served meanwhile",)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        (LoadPoint(requests=10, warmup=2), "4 of 10 done"),
        (LoadPoint(duration_s=60.0), "p: 4 done, 0 in flight, 0 failed"),
    ],
)
def test_progress_counts_what_ends_the_run(point, said, tmp_path, monkeypatch):
    monkeypatch.setattr(fixtures, "PROGRESS_EVERY_S", -1.0)
    diary = tmp_path / "bench.log"
    tick = fixtures.progress("p", point, 100_000, diary)

    tick(Counters())
    tick(Counters(done=4))

    assert said in diary.read_text()
