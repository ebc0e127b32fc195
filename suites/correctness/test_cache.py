"""The first request is cold, its repeat hits, another prompt does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pd.plan.model import WORKERS, Role
from pytest_pd.provision.kv_store import IN_USE, LOCK
from pytest_pd.provision.rundir import RunDir
from pytest_pd.reference.prompts import make_recall

pytestmark = [pytest.mark.correctness, pytest.mark.pd_needs("true_tokens")]


def hits(window):
    """Return cached prompt tokens of the workers that compute prompts."""
    roles = {e.role for e in window.endpoints if e.role in WORKERS}
    role = Role.PREFILL if Role.PREFILL in roles else Role.AGGREGATED
    return window.total(role, "local_hits")


def skip_if_shared(manifest, store):
    """Skip what KV of another run that is up makes meaningless."""
    if manifest.get("kv_not_cleared") == IN_USE:
        pytest.skip(f"{store} was not cleared: {IN_USE}")


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


@pytest.mark.pd_needs("shared_storage")
def test_the_kv_store_holds_nothing_of_an_earlier_run(deployment):
    """What lay there before this deployment would be hit and prove nothing."""
    store = Path(deployment.plan.expected.kv_path)
    if deployment.attached or not store.is_dir():
        pytest.skip(f"{store} was not empty before this run, or is on other hosts")
    manifest = RunDir(deployment.run_dir).read_manifest()
    skip_if_shared(manifest, store)
    begun_s = manifest["created_s"]

    files = [path for path in store.rglob("*") if path.name != LOCK]
    stale = [path.name for path in files if path.stat().st_mtime < begun_s]

    assert not stale, f"{len(stale)} files are older than this run: {stale[:5]}"


@pytest.mark.pd_needs("disaggregated")
def test_prefill_computes_a_prompt_that_earlier_runs_sent(watch, ask, deployment):
    """The same words in every run: only KV that an earlier one left could answer."""
    if deployment.attached:
        pytest.skip("an earlier run on this deployment may have sent it rightly")
    store = deployment.plan.expected.kv_path
    skip_if_shared(RunDir(deployment.run_dir).read_manifest(), store)
    question = make_recall("the same in every run", length_tokens=160)

    with watch() as seen:
        assert ask(question.text, max_tokens=4).ok

    prefill = seen.window.of_role(Role.PREFILL).values()
    assert [worker.external_hits for worker in prefill if worker.external_hits] == []
    assert [worker.local_hits for worker in prefill if worker.local_hits] == []
