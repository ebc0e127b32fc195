"""The first request is cold, its repeat hits, another prompt does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pd.plan.model import WORKERS, Role
from pytest_pd.provision.kv_store import IN_USE
from pytest_pd.provision.rundir import RunDir
from pytest_pd.reference.prompts import make_recall

pytestmark = [pytest.mark.correctness, pytest.mark.pd_needs("true_tokens")]

SURE_TOKENS = 128
"""Of the repeated prompt these are found again, with blocks of any size up to it."""


def hits(window):
    """Return cached prompt tokens of the workers that compute prompts."""
    if not window.names.local_hits:
        pytest.skip("this engine does not count prefix cache hits")
    roles = {e.role for e in window.endpoints if e.role in WORKERS}
    if not roles:
        pytest.skip("no worker is named: --pd-attach-prefill, --pd-attach-decode")
    role = Role.PREFILL if Role.PREFILL in roles else Role.AGGREGATED
    return sum(counted(window, role, "local_hits").values())


def counted(window, role, counter):
    """Return a counter of each worker of a role; one that does not say it fails."""
    counts = {name: getattr(e, counter) for name, e in window.of_role(role).items()}
    assert None not in counts.values(), f"a {role} worker has no {counter}: {counts}"
    return counts


def skip_if_shared(manifest, store):
    """Skip what KV of another run that is up makes meaningless."""
    if manifest.get("kv_not_cleared") == IN_USE:
        pytest.skip(f"{store} was not cleared: {IN_USE}")


def in_whole_blocks(tokens, block):
    """Return how many tokens of a repeated prompt a cache can hold: the last is not."""
    return (tokens - 1) // block * block


@pytest.fixture
def cached(watch, ask):
    """Send one prompt and return how many of its tokens came from a cache."""

    def _cached(question):
        with watch() as seen:
            assert ask(question.text, max_tokens=4).ok
        return hits(seen.window)

    return _cached


def test_first_request_is_cold(cached, prompts):
    assert cached(prompts.make("cold", tokens=160)) == 0


@pytest.mark.pd_needs("one_worker_per_role", "prefix_caching")
def test_repeat_hits(ask, cached, prompts, deployment):
    question = prompts.make("repeat", tokens=160)
    answer = ask(question.text, max_tokens=4)
    assert answer.ok, answer.error
    block = deployment.plan.expected.block_tokens or 16
    least = in_whole_blocks(answer.usage["prompt_tokens"], block)
    if not least:
        pytest.skip(f"the prompt fills no block of {block} tokens")

    found = cached(question)

    # an engine may choose larger blocks by itself, as for some kinds of attention
    assert found >= min(least, SURE_TOKENS), f"{found} of {least} tokens"


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

    # whatever else lies there, such as lost+found, is no KV
    files = store.rglob("*.safetensors")
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

    names = seen.window.names
    named = [c for c in ("external_hits", "local_hits") if getattr(names, c)]
    if not named:
        pytest.skip("this engine does not count prefix cache hits")
    for counter in named:
        found = counted(seen.window, Role.PREFILL, counter)
        assert not any(found.values()), f"{counter} of a prompt sent once: {found}"
