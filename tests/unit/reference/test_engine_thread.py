"""The engine by itself: right answers whatever else runs, and honest books."""

from __future__ import annotations

import pytest

from pytest_pd.reference.prompts import block_edge_lengths, make_recall


def test_an_answer_is_the_known_truth(make_bench):
    prompt = make_recall("one", chain=20)

    outcome = make_bench().ask(prompt.text, max_tokens=20)

    assert outcome.text == prompt.expected_text
    assert outcome.last.finish == "length"


@pytest.mark.parametrize("length", block_edge_lengths(16, 4))
def test_block_edges_are_no_edges_for_the_answer(make_bench, length: int):
    prompt = make_recall("edge", chain=40, length_tokens=length)

    assert make_bench().ask(prompt.text, max_tokens=40).text == prompt.expected_text


def test_requests_side_by_side_get_their_own_answers(make_bench):
    bench = make_bench()
    prompts = [make_recall(i, chain=30, length_tokens=40 + 13 * i) for i in range(12)]

    requests = [bench.submit(p.text, max_tokens=30) for p in prompts]
    outcomes = bench.wait(*requests)

    assert [o.text for o in outcomes] == [p.expected_text for p in prompts]


def test_each_token_is_an_event_of_its_own(make_bench):
    outcome = make_bench().ask(make_recall(0).text, max_tokens=10)

    assert [len(event.tokens) for event in outcome.events] == [1] * 10


def test_a_small_token_budget_only_takes_more_steps(make_bench):
    bench = make_bench(max_batched_tokens=20)
    prompt = make_recall("budget", chain=8, length_tokens=150)

    assert bench.ask(prompt.text, max_tokens=8).text == prompt.expected_text
    assert bench.value("iteration_tokens_total") == 150 + 7


def test_more_requests_than_seats_wait(make_bench):
    bench = make_bench(max_seqs=2)
    prompts = [make_recall(i, pairs=10, chain=10) for i in range(7)]

    outcomes = bench.wait(*[bench.submit(p.text, max_tokens=10) for p in prompts])

    assert [o.text for o in outcomes] == [p.expected_text for p in prompts]


def test_too_few_blocks_preempt_and_compute_again(make_bench):
    bench = make_bench(blocks=16, max_model_len=128, caching=False)
    prompts = [make_recall(i, pairs=18, chain=60) for i in range(3)]

    outcomes = bench.wait(*[bench.submit(p.text, max_tokens=60) for p in prompts])

    assert [o.text for o in outcomes] == [p.expected_text for p in prompts]
    assert bench.value("num_preemptions_total") >= 1
    assert bench.value("kv_cache_usage_perc") == 0


def test_a_repeated_prompt_is_found_in_the_cache(make_bench):
    bench = make_bench()
    prompt = make_recall("again", length_tokens=100)

    first = bench.ask(prompt.text, max_tokens=4)
    second = bench.ask(prompt.text, max_tokens=4)

    assert second.text == first.text
    assert second.request.cached == 96
    assert bench.value("prefix_cache_queries_total") == 200
    assert bench.value("prefix_cache_hits_total") == 96


def test_another_prompt_is_not(make_bench):
    bench = make_bench()
    bench.ask(make_recall("a", length_tokens=100).text, max_tokens=1)

    other = bench.ask(make_recall("b", length_tokens=100).text, max_tokens=1)

    assert other.request.cached == 0


def test_the_last_token_is_computed_even_if_all_is_cached(make_bench):
    bench = make_bench()
    prompt = make_recall("full", length_tokens=96)
    bench.ask(prompt.text, max_tokens=4)

    assert bench.ask(prompt.text, max_tokens=4).request.cached == 80


def test_a_turn_finds_the_answer_before_it_in_the_cache(make_bench):
    bench = make_bench()
    prompt = make_recall("turns", chain=30, length_tokens=50)
    first = bench.ask(prompt.text, max_tokens=30)

    second = bench.ask([*first.request.tokens, 5, 7], max_tokens=1)

    assert second.request.cached == 64


def test_without_caching_nothing_is_found(make_bench):
    bench = make_bench(caching=False)
    prompt = make_recall("again", length_tokens=100)
    bench.ask(prompt.text, max_tokens=1)

    assert bench.ask(prompt.text, max_tokens=1).request.cached == 0
    assert bench.value("prefix_cache_queries_total") == 0


def test_the_cache_can_be_emptied(make_bench):
    bench = make_bench()
    prompt = make_recall("again", length_tokens=100)
    bench.ask(prompt.text, max_tokens=1)

    bench.engine.reset_prefix_cache()

    assert bench.ask(prompt.text, max_tokens=1).request.cached == 0


def test_tokens_are_counted_by_where_they_came_from(make_bench):
    bench = make_bench()
    prompt = make_recall("sources", length_tokens=100)
    bench.ask(prompt.text, max_tokens=3)
    bench.ask(prompt.text, max_tokens=3)

    by_source = "prompt_tokens_by_source_total"
    assert bench.value(by_source, "local_compute") == 104
    assert bench.value(by_source, "local_cache_hit") == 96
    assert bench.value(by_source, "external_kv_transfer") == 0
    assert bench.value("prompt_tokens_total") == 200
    assert bench.value("generation_tokens_total") == 6
    assert bench.value("request_success_total", "length") == 2


def test_an_abort_frees_the_blocks(make_bench):
    bench = make_bench()
    request = bench.submit(make_recall(0).text, max_tokens=1500)
    bench.mail.get(timeout=60)

    bench.engine.abort(request.name)
    bench.settled()

    assert bench.value("request_success_total", "abort") == 1
    assert bench.value("kv_cache_usage_perc") == 0
    assert bench.engine.load == 0


def test_an_abort_of_a_waiting_request_leaves_the_others_alone(make_bench):
    bench = make_bench(max_seqs=1)
    prompt = make_recall("stays", chain=300)
    stays = bench.submit(prompt.text, max_tokens=300)
    leaves = bench.submit(make_recall("leaves").text, max_tokens=5)

    bench.engine.abort(leaves.name)

    assert bench.wait(stays)[0].text == prompt.expected_text


def test_an_error_in_the_engine_is_told(make_bench):
    bench = make_bench()

    def fail() -> None:
        raise RuntimeError("on purpose")

    bench.engine.post(fail)

    assert bench.dead.wait(60)


def test_an_unknown_abort_is_nothing(make_bench):
    bench = make_bench()

    bench.engine.abort("nobody")

    assert bench.ask(", w001 w002 ? w001", max_tokens=1).text == " w002"


def test_the_context_ends_an_answer(make_bench):
    bench = make_bench(max_model_len=64)

    outcome = bench.ask(make_recall(0, pairs=17).text, max_tokens=500)

    assert len(outcome.request.tokens) == 64
    assert outcome.last.finish == "length"


def test_a_stop_token_ends_an_answer_without_its_text(make_bench):
    prompt = make_recall("stop", chain=9)
    bench = make_bench()
    third = bench.tokenizer.encode(prompt.expected[2], with_bos=False)[0]

    outcome = bench.ask(prompt.text, max_tokens=9, stop_ids=frozenset({third}))

    assert outcome.text == "".join(f" {word}" for word in prompt.expected[:2])
    assert outcome.last.finish == "stop"
    assert outcome.last.stop_reason == third
    assert len(outcome.events) == 3


def test_a_stop_text_ends_an_answer(make_bench):
    prompt = make_recall("stop", chain=9)

    outcome = make_bench().ask(prompt.text, max_tokens=9, stop=(prompt.expected[2],))

    assert outcome.last.finish == "stop"
    assert outcome.last.stop_reason == prompt.expected[2]
    assert outcome.text.split() == prompt.expected[:2]


def test_min_tokens_puts_a_stop_token_off(make_bench):
    prompt = make_recall("stop", chain=9)
    bench = make_bench()
    first = bench.tokenizer.encode(prompt.expected[0], with_bos=False)[0]

    outcome = bench.ask(
        prompt.text, max_tokens=9, min_tokens=4, stop_ids=frozenset({first})
    )

    assert outcome.request.generated >= 5
    assert first not in outcome.request.tokens[-outcome.request.generated :][:4]


def test_a_seed_makes_sampling_repeatable_in_company(make_bench):
    bench = make_bench()
    ask = {"temperature": 3.0, "seed": 11, "max_tokens": 12}
    alone = bench.ask(make_recall("seed").text, **ask)

    others = [bench.submit(make_recall(i).text, max_tokens=12) for i in range(4)]
    again = bench.submit(make_recall("seed").text, **ask)

    assert bench.wait(*others, again)[-1].text == alone.text


def test_another_seed_draws_another_answer(make_bench):
    bench = make_bench()
    prompt = make_recall("seed").text

    one, other = (
        bench.ask(prompt, temperature=3.0, seed=seed, max_tokens=12).text
        for seed in (1, 2)
    )

    assert one != other


def test_logprobs_come_with_each_token(make_bench):
    outcome = make_bench().ask(make_recall(0).text, max_tokens=3, logprobs=2)

    for event in outcome.events:
        (row,) = event.logprobs
        assert row[0].token == event.tokens[0]
        assert row[0].rank == 1
        assert len(row) == 2
        assert row[0].logprob > -0.01


def test_prompt_logprobs_cover_all_but_the_first_token(make_bench):
    bench = make_bench(max_batched_tokens=16)
    prompt = make_recall("rows", length_tokens=50)

    first = bench.ask(prompt.text, max_tokens=1, prompt_logprobs=1)
    again = bench.ask(prompt.text, max_tokens=1, prompt_logprobs=1)

    rows = first.request.prompt_rows
    assert [row[0].token for row in rows] == list(first.request.prompt[1:])
    assert again.request.cached == 0
    assert again.request.prompt_rows == rows


def test_times_are_observed_once_per_request_and_token(make_bench):
    bench = make_bench()
    bench.ask(make_recall(0).text, max_tokens=5)

    assert bench.metrics.count("vllm:time_to_first_token_seconds") == 1
    assert bench.metrics.count("vllm:inter_token_latency_seconds") == 4
    assert bench.metrics.count("vllm:e2e_request_latency_seconds") == 1
    assert bench.value("e2e_request_latency_seconds") > 0


def test_a_prefill_that_also_decodes_is_seen_in_its_books(make_bench):
    bench = make_bench(faults=[{"kind": "prefill_also_decodes", "tokens": 5}])

    bench.ask(make_recall(0).text, max_tokens=1)

    assert bench.value("generation_tokens_total") == 6


def test_a_slow_step_takes_its_time(make_bench):
    bench = make_bench(faults=[{"kind": "slow_step", "seconds": 0.05}])

    bench.ask(make_recall(0).text, max_tokens=4)

    assert bench.value("e2e_request_latency_seconds") >= 4 * 0.05


def test_a_slow_rank_leaves_the_others_alone(make_bench):
    fault = {"kind": "slow_step", "seconds": 30.0, "rank": 1}

    assert make_bench(faults=[fault]).ask(make_recall(0).text, max_tokens=4).text


def test_a_leak_grows_with_each_step(make_bench):
    bench = make_bench(faults=[{"kind": "memory_growth", "mib": 1}])

    bench.ask(make_recall(0).text, max_tokens=3)

    assert sum(len(block) for block in bench.engine._leaked) == 3 << 20
