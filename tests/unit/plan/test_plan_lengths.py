"""Workloads held against what workers and buffers take."""

from typing import Any

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plan.length import check_lengths
from pytest_pd.plan.words import flag_count, flag_value
from pytest_pd.spec.topology import TopologySpec
from pytest_pd.spec.workload import WorkloadSpec


def topology(**changes: Any) -> TopologySpec:
    return TopologySpec.model_validate(
        {
            "name": "t",
            "hardware": "h100",
            "model": {"path": "m", "served_name": "m"},
            "engine": {"kind": "vllm"},
            "kv_transfer": {"connector": "nixl"},
            "prefill": {},
            "decode": {},
            "router": {"kind": "proxy"},
            **changes,
        }
    )


def workload(**changes: Any) -> WorkloadSpec:
    data = {
        "name": "w",
        "input_tokens": 1024,
        "output_tokens": 1024,
        "concurrency": [64],
    }
    return WorkloadSpec.model_validate(data | changes)


def takes(limit: int) -> dict[str, Any]:
    return {"args": ["--max-model-len", limit]}


def test_prefill_needs_the_prompt_and_one_token_only() -> None:
    assert check_lengths(topology(prefill=takes(1025)), [workload()]) == ()
    with pytest.raises(SpecError, match=r"1024 \+ 1 = 1025"):
        check_lengths(topology(prefill=takes(1024)), [workload()])


def test_decode_needs_the_whole_request() -> None:
    with pytest.raises(SpecError) as caught:
        check_lengths(topology(decode=takes(2020)), [workload()])

    assert caught.value.fact == (
        "t: decode takes --max-model-len 2020, and workload 'w' needs "
        "1024 + 1024 = 2048 tokens."
    )


def test_a_prompt_longer_than_prefill_takes_is_refused() -> None:
    with pytest.raises(SpecError, match="prefill takes --max-model-len 1023"):
        check_lengths(topology(prefill=takes(1023)), [workload()])


def test_an_engine_wide_limit_counts_for_both() -> None:
    spec = topology(engine={"kind": "vllm", **takes(2047)})

    with pytest.raises(SpecError, match="decode takes --max-model-len 2047"):
        check_lengths(spec, [workload()])


def test_turns_of_a_conversation_add_up() -> None:
    talk = workload(kind="multi_turn", turns=4, input_tokens=100, output_tokens=100)

    assert check_lengths(topology(decode=takes(800)), [talk]) == ()
    with pytest.raises(SpecError, match=r"400 \+ 400 = 800"):
        check_lengths(topology(decode=takes(799)), [talk])


def test_the_last_prompt_of_a_conversation_holds_the_answers_before_it() -> None:
    talk = workload(kind="multi_turn", turns=4, input_tokens=100, output_tokens=100)

    assert check_lengths(topology(prefill=takes(701)), [talk]) == ()
    with pytest.raises(SpecError, match=r"400 \+ 301 = 701"):
        check_lengths(topology(prefill=takes(700)), [talk])


@pytest.mark.parametrize("buffer", [0, 1024, 8448])
def test_a_buffer_that_holds_the_prompt_is_fine(buffer: int) -> None:
    spec = topology(kv_transfer={"connector": "ucx", "buffer_tokens": buffer})

    assert check_lengths(spec, [workload()]) == ()


def test_a_buffer_smaller_than_the_prompt_is_refused() -> None:
    spec = topology(kv_transfer={"connector": "ucx", "buffer_tokens": 512})

    with pytest.raises(SpecError, match="buffer_tokens 512 < the 1024 prompt tokens"):
        check_lengths(spec, [workload()])


def test_fewer_slots_than_requests_is_a_note() -> None:
    spec = topology(decode={"dp": 2, "args": ["--max-num-seqs=16"]})

    (note,) = check_lengths(spec, [workload()])

    assert note.startswith("decode holds 32 requests at once (--max-num-seqs 16 x dp 2")
    assert "top concurrency is 64" in note


def test_traces_are_not_judged() -> None:
    trace = WorkloadSpec.model_validate(
        {"name": "w", "kind": "trace", "dataset": {"path": "t.jsonl"}}
    )

    assert check_lengths(topology(decode=takes(1)), [trace]) == ()


@pytest.mark.parametrize(
    ("words", "value", "count"),
    [
        (("--n", "3"), "3", 3),
        (("--n=3",), "3", 3),
        (("--n", "3", "--n", "4"), "4", 4),
        (("--n",), "", None),
        (("--nn", "3"), None, None),
        (("--n", "auto"), "auto", None),
        (("--n", "-1"), "-1", None),
        (("--n", "0"), "0", None),
        ((), None, None),
    ],
)
def test_values_of_flags(
    words: tuple[str, ...], value: str | None, count: int | None
) -> None:
    assert flag_value(words, "--n") == value
    assert flag_count(words, "--n") == count
