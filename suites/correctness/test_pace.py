"""Faults that leave every answer right and only cost: time, one worker, memory."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict

import pytest

from pytest_pd.plan.model import WORKERS
from pytest_pd.probe.named import named_in, names_workers
from pytest_pd.probe.openai import COMPLETIONS
from pytest_pd.provision.compose import router_of

pytestmark = [
    pytest.mark.correctness,
    pytest.mark.measure,
    pytest.mark.pd_needs("disaggregated", "known_answers"),
]

PAIRS = 12
EXTRA_S = 0.25
EXTRA_TIMES = 4.0
"""A hand-over costs less than the longer of these: so many seconds, and so many times
the whole request without it."""
PER_WORKER = 10
SLOWER_TIMES = 3.0
SLOWER_S = 0.1
RESIDENT = "process_resident_memory_bytes"
GROWTH_BYTES = 64 * 2**20
MEMORY_ROUNDS = 3


def seconds(ask, question, tokens):
    begun_s = time.perf_counter()
    assert ask(question.text, max_tokens=tokens).ok
    return time.perf_counter() - begun_s


@pytest.mark.pd_needs("workers_answer")
def test_the_hand_over_does_not_hold_requests_up(ask, ask_aggregated, prompts):
    """KV over a slow path (TCP for RDMA, a slow disk) leaves answers right."""
    split_s, alone_s = [], []
    for index in range(PAIRS):
        question = prompts.make(index, tokens=200, answer_tokens=4)
        split_s.append(seconds(ask, question, 4))
        other = prompts.make(f"alone{index}", tokens=200, answer_tokens=4)
        alone_s.append(seconds(ask_aggregated, other, 4))

    alone = statistics.median(alone_s)
    extra = statistics.median(split_s) - alone

    assert extra < max(EXTRA_S, EXTRA_TIMES * alone), (
        f"P/D takes {extra:.3f} s longer than one worker alone ({alone:.3f} s)"
    )


@pytest.mark.pd_needs("router", "several_workers")
def test_no_worker_is_slower_than_its_peers(client, prompts, deployment, topology):
    """One slow GPU or one bad link hides in the mean of all workers."""
    witness = router_of(topology).witness(topology)
    if not names_workers(witness):
        pytest.skip("this router does not name the workers in its answers")
    workers = sum(len(deployment.plan.of_role(role)) for role in WORKERS)
    took_s = defaultdict(list)
    for index in range(PER_WORKER * workers):
        question = prompts.make(index, tokens=60, answer_tokens=16)
        body = {
            "model": deployment.plan.served_model,
            "prompt": question.text,
            "max_tokens": 16,
        }
        begun_s = time.perf_counter()
        response = client.post(COMPLETIONS, json=body | dict(witness.ask))
        elapsed_s = time.perf_counter() - begun_s
        assert response.status_code == 200, response.text
        named = named_in(witness, response.headers, response.json())
        assert named is not None, f"an answer names no workers: {response.text}"
        for phase, name in zip(("prefill", "decode"), named, strict=True):
            took_s[phase, name].append(elapsed_s)

    medians = {key: statistics.median(values) for key, values in took_s.items()}
    for (phase, name), median in medians.items():
        peers = [m for (p, n), m in medians.items() if p == phase and n != name]
        if peers:
            most = max(SLOWER_TIMES * min(peers), min(peers) + SLOWER_S)
            assert median < most, f"{phase} {name} is slow: {medians}"


def growth(window):
    """Return by how many bytes each service's resident memory grew."""
    before, after = window.delta.before.pages, window.delta.after.pages
    grown = {}
    for endpoint in window.endpoints:
        name = endpoint.service
        found = [page[name].total(RESIDENT) for page in (before, after) if name in page]
        if len(found) == 2 and None not in found:
            grown[name] = found[1] - found[0]
    return grown


def test_memory_of_the_workers_comes_to_rest(ask, prompts, watch, deployment):
    """A leak of a megabyte a step ends a night's run; forty requests show it.

    A huge page of a KV pool is touched once, by the request that gets to it first:
    only what grows in every round leaks.
    """
    kv = deployment.plan.expected.kv
    allowed = GROWTH_BYTES + (40 * 68 * kv.bytes_per_token if kv else 0)
    for index in range(PAIRS):
        assert ask(prompts.make(f"warm{index}", tokens=60).text, max_tokens=8).ok
    least = {}
    for turn in range(MEMORY_ROUNDS):
        with watch() as seen:
            for index in range(40):
                question = prompts.make(f"memory{turn}-{index}", tokens=60)
                assert ask(question.text, max_tokens=8).ok
        grown = growth(seen.window)
        if not grown:
            pytest.skip("no service reports its resident memory")
        least = {name: min(by, least.get(name, by)) for name, by in grown.items()}
        if max(least.values()) < allowed:
            return

    leaking = {name: f"{by / 2**20:.0f} MiB" for name, by in least.items()}
    pytest.fail(f"memory grew in each of {MEMORY_ROUNDS} times 40 requests: {leaking}")
