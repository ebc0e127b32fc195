"""The program inside lm-eval's process: order, exchanges, progress; lm-eval played."""

from __future__ import annotations

import asyncio
import io
import json
from types import SimpleNamespace

import pytest

from pytest_pd.evals import driver


def request(doc_id, text, kwargs=None, task="t"):
    return SimpleNamespace(task_name=task, doc_id=doc_id, args=(text, kwargs or {}))


@pytest.fixture
def told(monkeypatch):
    facts: list[dict] = []
    monkeypatch.setattr(driver, "tell", lambda **fact: facts.append(fact))
    return facts


def test_exchanges_are_written_with_sample_and_place(told):
    sink = io.StringIO()
    recorder = driver.Recorder("pd", sink)
    recorder.expect([request(0, "a"), request(1, "b")])

    for text in ("b", "a"):
        recorder.keep((text, {}), *recorder.send())

    rows = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert [(row["doc_id"], row["sent"]) for row in rows] == [(1, 0), (0, 1)]
    assert rows[0]["begun_s"] == 0
    assert rows[1]["begun_s"] >= rows[0]["begun_s"]
    assert told[-1] == {"side": "pd", "done": 2, "total": 2}


def test_one_prompt_of_two_samples_is_counted_for_both(told):
    sink = io.StringIO()
    recorder = driver.Recorder("pd", sink)
    recorder.expect([request(4, "same"), request(5, "same")])

    for _ in range(2):
        recorder.keep(("same", {}), *recorder.send())

    rows = [json.loads(line)["doc_id"] for line in sink.getvalue().splitlines()]
    assert rows == [4, 5]


@pytest.mark.parametrize(
    ("answer", "tokens", "logprobs"),
    [
        pytest.param(
            {"choices": [{"logprobs": {"tokens": [" a"], "token_logprobs": [-0.5]}}]},
            [" a"],
            [-0.5],
            id="completions",
        ),
        pytest.param(
            {"choices": [{"logprobs": {"content": [{"token": "a", "logprob": -0.5}]}}]},
            ["a"],
            [-0.5],
            id="chat",
        ),
        pytest.param(
            {
                "choices": [
                    {"logprobs": {"tokens": ["x", "y"], "token_logprobs": [None, -1]}}
                ]
            },
            ["y"],
            [-1.0],
            id="echo-has-none-first",
        ),
        pytest.param({"choices": [{"logprobs": None}]}, [], [], id="not-asked"),
        pytest.param({"choices": []}, [], [], id="empty"),
        pytest.param(None, [], [], id="nothing"),
    ],
)
def test_logprobs_are_read_from_either_api(answer, tokens, logprobs):
    assert driver.read_logprobs(answer) == (tokens, logprobs)


def test_one_request_at_a_time_stays_on_the_async_path():
    one = driver.One(1)

    assert not one <= 1
    assert one == 1
    assert asyncio.Semaphore(one)._value == 1


def test_order_is_of_the_seed_and_not_of_the_length():
    requests = [("x" * n, {}) for n in range(1, 100)]

    order = sorted(requests, key=driver.shuffled(1))

    backwards = list(reversed(requests))
    assert order == sorted(backwards, key=driver.shuffled(1))
    assert order != sorted(requests, key=driver.shuffled(2))
    firsts = [len(text) for text, _ in order[:50]]
    assert 30 < sum(firsts) / 50 < 70


def test_a_request_is_stamped_when_it_may_go_out(told):
    """Not when it is made: lm-eval makes all of them at once and lets a few through."""
    sink = io.StringIO()
    recorder = driver.Recorder("pd", sink)
    recorder.expect([request(i, str(i)) for i in range(3)])

    async def call(self, session, sem, messages, **kwargs):
        await sem.acquire()
        try:
            await asyncio.sleep(0.01)
        finally:
            sem.release()
        return ["answer"]

    timed = driver._timed(call, lambda: recorder)

    async def all_at_once():
        sem = asyncio.Semaphore(1)
        jobs = [timed(None, None, sem, [], cache_keys=[(str(i), {})]) for i in range(3)]
        return await asyncio.gather(*jobs)

    asyncio.run(all_at_once())

    rows = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert [row["sent"] for row in rows] == [0, 1, 2]
    assert [row["begun_s"] for row in rows] == sorted(row["begun_s"] for row in rows)
    assert rows[2]["begun_s"] >= 0.02


@pytest.mark.parametrize("is_static", [True, False], ids=["static", "method"])
def test_parsers_pass_the_answer_on(is_static):
    class Api:
        if is_static:

            @staticmethod
            def parse(outputs, **kwargs):
                return [outputs["text"]]

        else:

            def parse(self, outputs, **kwargs):
                return [outputs["text"]]

    driver._hear(Api, "parse")

    assert Api().parse(outputs={"text": "a"}) == ["a"]
    assert driver.ANSWER.get() == {"text": "a"}


def test_logprobs_are_asked_of_generated_answers_only():
    def create(self, messages, generate=False, **kwargs):
        return {"prompt": messages, "max_tokens": 1}

    wished = driver._with(create, {"logprobs": 1})

    assert wished(None, "x", generate=True)["logprobs"] == 1
    assert "logprobs" not in wished(None, "x", generate=False)


def test_what_the_task_asks_wins_over_the_wish():
    def create(self, messages, generate=False, **kwargs):
        return {"logprobs": 5}

    assert driver._with(create, {"logprobs": 1})(None, "x", generate=True) == {
        "logprobs": 5
    }


def test_a_call_that_fails_leaves_its_error_and_lets_others_run(tmp_path, capsys):
    done = []

    def evaluate():
        if "bad" in driver.sys.argv:
            raise TypeError("no logprobs")
        done.append(driver.sys.argv)

    argv = driver.sys.argv
    try:
        driver.run_call(["bad"], tmp_path, evaluate)
        driver.run_call(["good"], tmp_path / "none", evaluate)
    finally:
        driver.sys.argv = argv

    assert (tmp_path / "error.txt").read_text() == "TypeError: no logprobs"
    assert done == [["lm-eval", "good"]]
    assert "Traceback" in capsys.readouterr().err
