"""Which fault is put where, which checks must catch it, and who met it in the field.

A case is data. Every kind of `pytest_pd.reference.faults` and of
`pytest_pd.proxy.fault` has at least one; a test holds that. `must` names checks that
have to be red; what else is red is found by the run (`benchmarks/power/run.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ALIVE = "bring_up"
"""Not a test: a service that dies, or that no token comes out of, ends everything."""
RESILIENCE = "suites/resilience"
ACCURACY = "suites/accuracy"
RECALL = "suites/accuracy/test_recall_pairs.py"


@dataclass(frozen=True, slots=True)
class Case:
    """One fault in one topology.

    Attributes:
        place: Pool or router whose ``faults`` it is put into; ``decode-1`` is one of
            two decode workers.
        base: Key of `BASES`.
        must: Checks that have to be red.
        blind: Why no check can see it; empty where one must.
        reports: Public reports of users who met it.
        alone: Only the checks that must catch it are run: others would use up its
            first requests.
        more: Suites run besides correctness; with accuracy at level ``standard``.
    """

    id: str
    place: str
    fault: Mapping[str, Any]
    base: str = "pull"
    must: tuple[str, ...] = ()
    blind: str = ""
    reports: str = ""
    more: tuple[str, ...] = ()
    alone: bool = False
    topology: Mapping[str, Any] = field(default_factory=dict)

    @property
    def program(self) -> str:
        """Return ``proxy`` or ``reference``: whose kind of fault it is."""
        return "proxy" if self.place == "router" else "reference"


COMMON: Mapping[str, Any] = {
    "hardware": "cpu",
    "model": {"path": "fixtures/models/tiny", "served_name": "tiny"},
    "engine": {"kind": "reference"},
    "prefill": {"replicas": 1},
    "decode": {"replicas": 1},
    "router": {"kind": "proxy"},
}
PAIRS: Mapping[str, Any] = {
    "prefill": {"replicas": 2},
    "decode": {"workers": [{}, {}]},
    "kv_transfer": {"connector": "pull"},
}
BASES: Mapping[str, Mapping[str, Any]] = {
    "files": {
        "kv_transfer": {"connector": "shared_storage", "path": "{run_dir}/kv"},
    },
    "pull": {"kv_transfer": {"connector": "pull"}},
    "pairs": PAIRS,
    "vllm_router": {
        "kv_transfer": {"connector": "nixl"},
        "router": {"kind": "vllm_router", "policy": "round_robin"},
    },
    "sessions": {**PAIRS, "router": {"kind": "proxy", "policy": "consistent_hash"}},
}

WRONG = ("test_greedy_output_equals_aggregated", "test_answers_are_right")
HANDED = ("test_decode_gets_the_tokens_that_the_prompts_predict",)
STREAM = ("test_stream_ends_with_done_and_usage",)
WHOLE = "test_streams_bring_every_token_once"
UNEVEN = ("test_every_worker_is_used_evenly",)
ROUTED = ("test_router_sent_every_request_through_both_phases",)
LATE = ("test_the_hand_over_does_not_hold_requests_up",)
REFUSED = (
    "test_malformed_request_is_refused",
    "test_broken_json_is_refused",
    "test_context_overflow_is_refused",
    "test_unknown_path_is_refused",
)
UNDER_FIRE = (
    "test_killed_while_it_streams",
    "test_killed_while_idle",
    "test_frozen_while_it_streams",
)


def engine(id: str, kind: str, *must: str, place: str = "decode", **rest: Any) -> Case:
    """Return a case of the reference engine; options are the fault's own."""
    return _case(id, kind, place, must, rest)


def router(id: str, kind: str, *must: str, **rest: Any) -> Case:
    """Return a case of the proxy."""
    return _case(id, kind, "router", must, rest)


def _case(
    id: str, kind: str, place: str, must: tuple[str, ...], rest: dict[str, Any]
) -> Case:
    own = {k: rest.pop(k) for k in Case.__dataclass_fields__ if k in rest}
    return Case(id, place, {"kind": kind, **rest}, must=must, **own)


ENGINE_CASES = (
    engine("kv-bit-flip-files", "kv_bit_flip",
           "test_no_accuracy_is_lost_against_aggregated",
           "test_answers_are_identical_at_temperature_0",
           "test_answers_stay_right_over_many_requests", *WRONG, base="files",
           reports="sglang#30433", more=(RECALL,)),
    engine("kv-bit-flip-pull", "kv_bit_flip", *WRONG, layer=3, head=1,
           reports="vllm#42898"),
    engine("kv-bit-flip-after-100", "kv_bit_flip", "test_answers_are_right",
           after=100, reports="sglang#23020", more=(RECALL,)),
    engine("kv-bit-flip-drift", "kv_bit_flip",
           "test_accuracy_does_not_drift_over_the_run", after=100, alone=True,
           more=(RECALL,), reports="sglang#23020"),
    engine("kv-swap-pull", "kv_swap",
           "test_requests_beside_each_other_do_not_mix",
           "test_stream_says_what_the_whole_answer_says", *WRONG,
           reports="TensorRT-LLM#17334"),
    engine("kv-swap-files-after-20", "kv_swap", *WRONG, base="files", after=20,
           more=(RECALL,)),
    engine("kv-stale", "kv_stale", *WRONG, more=(RECALL,)),
    engine("kv-truncated-pull", "kv_truncated", *WRONG),
    engine("kv-truncated-files", "kv_truncated", *WRONG, base="files"),
    engine("kv-not-sent-pull", "kv_not_sent", place="prefill",
           reports="srt-slurm#429"),
    engine("kv-not-sent-files", "kv_not_sent", *HANDED, base="files",
           place="prefill", reports="vllm#26896"),
    engine("kv-late", "kv_late", *LATE, reports="dynamo#1314, vllm#52607"),
    engine("recompute-files", "silent_recompute",
           "test_decode_logs_the_hit", *HANDED, base="files",
           reports="vllm#26896"),
    engine("recompute-pull", "silent_recompute",
           "test_bytes_are_those_of_the_models_shape", *HANDED, reports="vllm#26896"),
    engine("recompute-after-20", "silent_recompute", *HANDED, after=20),
    engine("recompute-lying-files", "silent_recompute",
           "test_decode_uses_the_files_of_prefill", base="files", metrics="lying",
           reports="vllm#44607"),
    engine("recompute-lying-pull", "silent_recompute",
           "test_decode_uses_the_kv_that_it_pulls", metrics="lying",
           reports="vllm#47136"),
    engine("recompute-lying-fetches", "silent_recompute",
           "test_decode_uses_the_kv_that_it_pulls", metrics="lying", pull=True,
           reports="vllm#47136"),
    engine("prefill-also-decodes", "prefill_also_decodes",
           "test_decode_generates_the_answer", place="prefill"),
    engine("http-500", "http_error",
           "test_whole_answer", every=3, status=500, reports="vllm#30975"),
    engine("http-404", "http_error",
           "test_whole_answer", status=404, every=3, place="prefill"),
    engine("http-429", "http_error",
           "test_whole_answer", every=2, status=429,
           reports="InferenceX#357"),
    engine("clock-step", "clock_step", "test_answers_are_dated_by_our_clock",
           after=1),
    engine("prompt-cut", "prompt_cut", "test_prompt_length_is_counted_right",
           place="engine"),
    engine("old-kv", "old_kv", "test_the_kv_store_holds_nothing_of_an_earlier_run",
           base="files", place="prefill"),
    engine("models-wrong", "models_wrong", "test_model_is_listed", place="engine"),
    engine("false-hit", "false_hit", "test_another_prompt_does_not_hit",
           "test_first_request_is_cold", place="prefill"),
    engine("wrong-under-fire", "kv_swap", *UNDER_FIRE, every=3, alone=True,
           more=(RESILIENCE,)),
    engine("recompute-after-a-death", "silent_recompute",
           "test_kv_is_right_after_a_death", alone=True, more=(RESILIENCE,)),
    engine("vllm-router-500", "http_error",
           "test_log_tells_of_both_phases_of_every_request", base="vllm_router",
           place="prefill", every=5, after=5, alone=True),
    engine("stall-sometimes", "stall", "test_no_answer_is_held_up", every=25,
           after=5, reports="sglang#6320"),
    engine("stall-always", "stall", *LATE, seconds=1.0),
    engine("crash", "crash", ALIVE, after=60, reports="sglang#13657"),
    engine("crash-exit-0", "crash", ALIVE, after=6, code=0,
           reports="srt-slurm: only non-zero exits were noticed"),
    engine("stream-error", "stream_error", *STREAM, reports="vllm#57519"),
    engine("stream-cut", "stream_cut", *STREAM),
    engine("stream-crash", "stream_crash", ALIVE),
    engine("stream-stall", "stream_stall", "test_no_answer_is_held_up", every=20,
           after=15, reports="vllm#29369"),
    engine("no-done", "no_done", *STREAM),
    engine("token-twice", "token_twice", WHOLE),
    engine("token-missing", "token_missing", WHOLE),
    engine("first-chunk-empty", "first_chunk_empty",
           "test_a_stream_begins_with_a_token", reports="inference-perf#564"),
    engine("tokens-bundled", "tokens_bundled",
           "test_a_stream_brings_one_token_in_an_event",
           reports="vllm#27485, aiperf#1279"),
    engine("usage-wrong", "usage_wrong", *STREAM, reports="vllm-omni#7058"),
    engine("slow-worker", "slow_step", "test_no_worker_is_slower_than_its_peers",
           place="decode-1", base="pairs", reports="sglang#29127"),
    engine("slow-all", "slow_step", place="engine", seconds=0.005,
           blind="Every worker computes each step 5 ms slower: no answer and no "
           "comparison inside the run shows it. A gate against an earlier run does "
           "(`--pd-gate`, `pytest-pd compare`)."),
    engine("memory-growth", "memory_growth",
           "test_memory_of_the_workers_comes_to_rest"),
    engine("metrics-frozen", "metrics_frozen", *HANDED,
           "test_no_request_is_lost_or_doubled",
           reports="tt-inference-server#4356"),
    engine("metrics-frozen-prefill", "metrics_frozen",
           "test_prefill_computes_the_prompts",
           "test_repeat_hits", place="prefill"),
    engine("slow-start", "slow_start", ALIVE, seconds=20.0,
           topology={"budgets": {"ready_s": 4}}, reports="llm-d-benchmark#91"),
    engine("crash-at-start", "crash_at_start", ALIVE),
    engine("crash-at-start-exit-0", "crash_at_start", ALIVE, code=0),
    engine("ready-lie", "ready_lie", ALIVE, seconds=600.0, reports="dynamo#3493",
           topology={"budgets": {"ready_s": 4}}),
)  # fmt: skip

ROUTER_CASES = (
    router("bypass-prefill", "bypass_prefill",
           "test_answers_name_a_prefill_and_a_decode_worker",
           "test_prefill_computes_the_prompts",
           reports="dynamo#3774"),
    router("pin-worker", "pin_worker", *UNEVEN, base="pairs",
           reports="vllm router#174"),
    router("drop-worker", "drop_worker", *UNEVEN, base="pairs", role="prefill",
           reports="production-stack#617"),
    router("pin-dead-worker", "pin_worker",
           "test_peers_take_over_from_a_dead_worker", base="pairs", alone=True,
           more=(RESILIENCE,)),
    router("ignore-session", "ignore_session",
           "test_a_session_stays_on_its_worker", base="sessions",
           reports="vllm router#299"),
    router("prefill-decodes", "prefill_decodes",
           "test_decode_generates_the_answer"),
    router("kv-params-dropped", "kv_params_dropped", *HANDED),
    router("kv-params-stale", "kv_params_stale", *WRONG),
    router("router-kv-late", "kv_late", *LATE),
    router("router-status", "status",
           "test_whole_answer", status=503, every=2,
           reports="pytorch#172616"),
    router("router-sse-error", "sse_error", *STREAM, reports="vllm#57519"),
    router("router-cut", "cut", *STREAM),
    router("router-no-done", "no_done", *STREAM),
    router("router-token-twice", "duplicate_token", WHOLE),
    router("router-token-missing", "missing_token", WHOLE),
    router("router-first-empty", "empty_first",
           "test_a_stream_begins_with_a_token", reports="aiperf#1279"),
    router("router-bundle", "bundle", "test_tokens_are_not_kept_back_for_company",
           reports="vllm#27485"),
    router("router-usage-wrong", "usage_wrong", *STREAM),
    router("router-stall", "stall", "test_no_answer_is_held_up", seconds=5.0,
           every=20, after=15, reports="dynamo#11914"),
    router("router-exit", "exit", ALIVE, after=6, status=0),
    router("router-metrics-frozen", "metrics_frozen",
           "test_router_and_workers_agree", *ROUTED),
    router("router-metrics-doubled", "metrics_doubled", *ROUTED),
    router("router-status-lies", "status_lies", *REFUSED,
           reports="vllm#30975, pytorch#172616"),
    router("router-ready-lie", "ready_lie",
           "test_the_router_tells_that_a_role_is_gone", more=(RESILIENCE,),
           reports="srt-slurm#450"),
)  # fmt: skip

CASES: tuple[Case, ...] = (*ENGINE_CASES, *ROUTER_CASES)


def topology_of(case: Case | None, base: str = "pull") -> dict[str, Any]:
    """Return the topology file of a case; of the clean base when there is none."""
    content = {**COMMON, **BASES[case.base if case else base]}
    content["name"] = f"power_{case.base if case else base}"
    if case is None:
        return content
    content |= case.topology
    faults = {"faults": [dict(case.fault)]}
    if case.place == "decode-1":
        content["decode"] = {"workers": [{}, faults]}
    else:
        content[case.place] = {**content[case.place], **faults}
    return content
