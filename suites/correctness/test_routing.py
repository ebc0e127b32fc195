"""Every worker is used, as the workers count and as the router says."""

from __future__ import annotations

import pytest

from pytest_pd.measure.spread import ALPHA, even_p_value
from pytest_pd.plan.model import Role

pytestmark = [
    pytest.mark.correctness,
    pytest.mark.pd_needs("disaggregated", "router"),
]

PER_WORKER = 20


@pytest.fixture
def window(ask, prompts, watch, deployment):
    """Send 20 prompts per worker of the larger role, each of another session."""
    workers = max(len(deployment.plan.of_role(r)) for r in (Role.PREFILL, Role.DECODE))
    with watch() as seen:
        for i in range(PER_WORKER * workers):
            question = prompts.make(i, tokens=40)
            session = {"x-session-id": f"session-{i}"}
            assert ask(question.text, max_tokens=2, headers=session).ok
    return seen.window


def served(window, role):
    """Return requests per worker, by the workers' own counters."""
    if not window.names.requests:
        pytest.skip("this engine does not count requests")
    counts = {name: e.requests for name, e in window.of_role(role).items()}
    assert None not in counts.values(), f"a {role} worker does not say: {counts}"
    return counts


@pytest.mark.pd_needs("several_workers", "even_policy")
def test_every_worker_is_used_evenly(window):
    for role in (Role.PREFILL, Role.DECODE):
        counts = served(window, role)
        assert min(counts.values()) > 0, f"a {role} worker got nothing: {counts}"
        p = even_p_value(list(counts.values()))
        assert p > ALPHA, f"{role} requests are uneven (p = {p:.2g}): {counts}"


def test_no_request_is_lost_or_doubled(window, deployment):
    for role in (Role.PREFILL, Role.DECODE):
        counts = served(window, role)
        sent = PER_WORKER * max(
            len(deployment.plan.of_role(r)) for r in (Role.PREFILL, Role.DECODE)
        )
        assert sum(counts.values()) == sent, f"{role}: {counts} of {sent} requests"


def test_router_and_workers_agree(window):
    if not window.router.prefill_requests:
        pytest.skip("this router does not count requests per worker")
    for role in (Role.PREFILL, Role.DECODE):
        routed = window.routed(role)
        counted = list(served(window, role).values())
        if window.router.worker_label:
            assert sorted(routed.values()) == sorted(counted)
        else:
            assert sum(routed.values()) == sum(counted)


@pytest.mark.pd_needs("several_workers", "session_affinity")
def test_a_session_stays_on_its_worker(ask, prompts, watch):
    with watch() as seen:
        for i in range(10):
            headers = {"x-session-id": "one-and-the-same"}
            assert ask(prompts.make(i, tokens=40).text, headers=headers).ok

    for role in (Role.PREFILL, Role.DECODE):
        used = [n for n in served(seen.window, role).values() if n]
        assert len(used) == 1, f"one session was served by {len(used)} {role} workers"
