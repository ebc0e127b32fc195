"""The first request is cold, its repeat hits, another prompt does not."""

from __future__ import annotations

import pytest

from pytest_pd.plan.model import WORKERS, Role

pytestmark = [pytest.mark.correctness, pytest.mark.pd_needs("true_tokens")]


def hits(window):
    """Return cached prompt tokens of the workers that compute prompts."""
    roles = {e.role for e in window.endpoints if e.role in WORKERS}
    role = Role.PREFILL if Role.PREFILL in roles else Role.AGGREGATED
    return window.total(role, "local_hits")


@pytest.fixture
def cached(watch, ask):
    """Send one prompt and return how many of its tokens came from a cache."""

    def _cached(question):
        with watch() as seen:
            assert ask(question.text, max_tokens=4).ok
        found = hits(seen.window)
        if found is None:
            pytest.skip("this engine does not count prefix cache hits")
        return found

    return _cached


def test_first_request_is_cold(cached, prompts):
    assert cached(prompts.make("cold", tokens=160)) == 0


@pytest.mark.pd_needs("one_worker_per_role")
def test_repeat_hits(cached, prompts):
    question = prompts.make("repeat", tokens=160)

    cached(question)

    assert cached(question) >= 128


def test_another_prompt_does_not_hit(cached, prompts):
    cached(prompts.make("one", tokens=160))

    assert cached(prompts.make("other", tokens=160)) == 0


@pytest.mark.pd_needs("disaggregated")
def test_no_kv_of_an_earlier_run_is_used(watch, ask, prompts):
    """A prompt of this run alone finds nothing that prefill did not hand over."""
    question = prompts.make("stale", tokens=160)

    with watch() as seen:
        assert ask(question.text, max_tokens=4).ok

    prefill = seen.window.of_role(Role.PREFILL).values()
    assert sum(worker.external_hits or 0 for worker in prefill) == 0
    handed = seen.window.total(Role.DECODE, "external_tokens")
    assert handed is None or handed <= 160
