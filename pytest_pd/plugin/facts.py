"""What tests may ask of a topology by ``pd_needs``."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pd.plan.model import DeploymentPlan, Endpoint, Role
from pytest_pd.probe.promptbook import PromptBook
from pytest_pd.provision.compose import engine_of
from pytest_pd.spec.topology import TopologySpec

EVEN_POLICIES = ("", "round_robin", "random", "consistent_hash", "power_of_two")
"""Router policies that give requests of many sessions to all workers alike."""

SESSION_POLICIES = ("consistent_hash", "consistent_hashing")
"""Router policies that keep a session on its worker, whatever its prompts say.

``cache_aware`` is none: it goes by the prompt's text, and spreads different prompts.
"""

NO_API = ("dynamo",)
"""Engines whose workers answer no HTTP requests but those for health and metrics."""


def facts_of(spec: TopologySpec, plan: DeploymentPlan) -> dict[str, bool]:
    """Return all that tests may ask for by ``pd_needs``, and whether it holds."""
    expected = plan.expected
    prefill = plan.of_role(Role.PREFILL)
    decode = plan.of_role(Role.DECODE)
    roles = (prefill, decode, plan.of_role(Role.AGGREGATED))
    names = engine_of(spec).evidence(spec)
    # of a connector without a counter nobody knows what it moves
    pulls = expected.transfer == "pull" and bool(names.transferred_bytes)
    # of files whole blocks are handed over: their size must be known
    files = expected.transfer == "shared_storage" and bool(expected.block_tokens)
    return {
        "counts_tokens": bool(names.prompt_tokens and names.generated_tokens),
        "disaggregated": bool(prefill and decode),
        "router": spec.router is not None,
        "true_tokens": expected.true_tokens,
        "checks_requests": expected.true_tokens,
        "deterministic": expected.deterministic == "exact",
        "kv_shape": expected.kv is not None,
        "handed_tokens": (pulls or files) and bool(names.external_tokens),
        "handed_files": files,
        "handed_bytes": pulls and has_even_bytes(spec, plan),
        "shared_storage": expected.transfer == "shared_storage",
        "pull": expected.transfer == "pull",
        "several_workers": max(len(prefill), len(decode)) > 1,
        "one_worker_per_role": max(map(caches, roles)) <= 1,
        "even_policy": spec.router is not None
        and (spec.router.policy or "") in EVEN_POLICIES,
        "gpus": plan.gpus > 0 and not plan.rehearsal,
        "session_affinity": spec.router is not None
        and (spec.router.policy or "") in SESSION_POLICIES,
        "known_answers": expected.true_tokens and is_recall(plan.model_path),
        "prefix_caching": caches_prefixes(spec, plan),
        "workers_answer": plan.engine not in NO_API,
        "reference": plan.engine == "reference",
        "migrates": claims_migration(plan),
        # vllm-router 0.1.17 puts prefill's before decode's: each comes twice
        "prompt_logprobs": spec.router is None or spec.router.kind != "vllm_router",
    }


def caches(endpoints: Sequence[Endpoint]) -> int:
    """Return how many prefix caches answer there: each rank has its own."""
    return sum(len(endpoint.ranks) or 1 for endpoint in endpoints)


def has_even_bytes(spec: TopologySpec, plan: DeploymentPlan) -> bool:
    """Tell whether the model's shape says how many bytes all ranks of decode pull.

    A rank of TP pulls its share of the KV heads, or a copy where they are fewer; the
    latent vector of MLA counts as one head. Which stages of PP count is not known.
    The reference engine moves each prompt's KV once, whatever shape it plays.
    """
    kv, pool = plan.expected.kv, spec.decode
    if kv is None or plan.expected.block_tokens is None or pool is None:
        return False
    if plan.rehearsal or plan.engine == "reference":
        return True
    pools = [pool.worker(replica) for replica in range(pool.replicas)]
    return all(each.pp == 1 and kv.kv_heads % each.tp == 0 for each in pools)


NO_CACHE = "--no-enable-prefix-caching"


def caches_prefixes(spec: TopologySpec, plan: DeploymentPlan) -> bool:
    """Tell whether no key and no flag turns prefix caching of prompts off."""
    pool = spec.prefill or spec.aggregated
    if pool is not None and pool.prefix_caching is False:
        return False
    role = Role.PREFILL if spec.prefill else Role.AGGREGATED
    words = {*spec.engine.args, *(pool.args if pool else ())}
    words |= {w for each in plan.services if each.role is role for w in each.argv}
    return NO_CACHE not in {word.replace("_", "-") for word in words}


MIGRATION = "--migration-limit"


def claims_migration(plan: DeploymentPlan) -> bool:
    """Tell whether requests of a dead worker are promised to go on elsewhere."""
    for service in plan.services:
        words = dict(zip(service.argv, service.argv[1:], strict=False))
        limit = words.get(MIGRATION, "0")
        if limit.isdigit() and int(limit) > 0:
            return True
    return False


def is_recall(model_path: str) -> bool:
    """Tell whether the model is the recall model, whose answers are known."""
    return PromptBook(model_path, "").knows_answers
