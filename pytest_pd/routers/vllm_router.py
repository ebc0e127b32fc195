"""vllm-router: P/D in two stages, consistent hashing, data-parallel ranks by URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Endpoint, ReadyPlan, Role
from pytest_pd.plan.seam import (
    POD_NAMESPACE,
    Launch,
    Program,
    RouterWitness,
    Worker,
)
from pytest_pd.plan.words import flag_count
from pytest_pd.spec.topology import TopologySpec

POLICIES = (
    "random",
    "round_robin",
    "cache_aware",
    "kv_aware",
    "power_of_two",
    "consistent_hash",
    "sticky_least_loaded",
)
NEUTRAL = {"least_loaded": "sticky_least_loaded", "kv": "kv_aware"}
"""Neutral policy names that the router has under another name."""

PER_POD = (
    "One URL per pod: recipes with one cluster IP per role said "
    "--intra-node-data-parallel-size for it, which is not needed here. Their "
    "--pd-disaggregation is --vllm-pd-disaggregation since vllm-router 0.1, and their "
    "log line 'PD retry attempt' is 'Transparent proxy: prefill=..., decode=...'."
)
CLUSTER_IP = (
    "One cluster IP before several pods: kube-proxy chooses a pod for each connection, "
    "so consistent hashing pins a session to a rank's number and not to a pod."
)

NO_KEY = "none"
"""The router wants some key as soon as it addresses ranks; engines ignore it."""

WITNESS = RouterWitness(
    prefill_requests="vllm_router_pd_prefill_requests_total",
    decode_requests="vllm_router_pd_decode_requests_total",
    worker_label="worker",
    id_pattern=(
        r"___prefill_addr_(?P<prefill>[^_]+)___decode_addr_(?P<decode>.+?)_[0-9a-f]{8}"
    ),
    log_pattern=(
        r"Transparent proxy: prefill=(?P<prefill>\S+), decode=(?P<decode>\S+)"
    ),
)
CHECK_EVERY_FLAG, CHECK_EVERY_S = "--health-check-interval-secs", 5
FAILURES_FLAG, FAILURES = "--health-failure-threshold", 3
"""Failed checks in a row that make a worker dead; its own default."""
STAGES = ((r"Starting router", "starting"), (r"Router ready", "ready"))


class VllmRouter:
    """Turns endpoints of prefill and decode into a ``vllm-router`` command line."""

    name = "vllm_router"

    def ports(self) -> Mapping[str, int]:
        """One for clients, one for Prometheus: the main port has no metrics."""
        return {"http": 1, "metrics": 1}

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        """Refuse unknown policies and mixed numbers of ranks; return notes."""
        router = topology.router
        policy = router.policy if router else None
        if policy is not None and NEUTRAL.get(policy, policy) not in POLICIES:
            raise SpecError.unknown("router.policy", policy, (*POLICIES, *NEUTRAL))
        if topology.kubernetes and topology.kubernetes.front == "per_pod":
            return (PER_POD,)
        if topology.kubernetes and topology.kubernetes.front == "cluster_ip":
            return (CLUSTER_IP,)
        if topology.kv_transfer is not None and "nixl" not in (
            topology.kv_transfer.connector.lower()
        ):
            return (
                "vllm-router speaks NIXL's two stages; other connectors work with it "
                "only as far as prefill comes first.",
            )
        return ()

    def launch(self, worker: Worker, endpoints: Sequence[Endpoint]) -> Launch:
        """Return argv and readiness: ready once every worker answered it."""
        http = worker.ports["http"]
        return Launch(
            argv=tuple(_argv(worker, endpoints)),
            ready=ReadyPlan(
                kind="http",
                target=f"http://{worker.address}:{http}/readiness",
                budget_s=300.0,
                stall_s=300.0,
                stages=STAGES,
            ),
            metrics_port="metrics",
            notes=(_key_note(endpoints),) if _ranks(endpoints) > 1 else (),
        )

    def witness(self, topology: TopologySpec) -> RouterWitness:
        """Return response id, counters per worker and the debug log.

        A request to a dead worker fails without a retry until the worker has failed
        several checks in a row.
        """
        words = topology.router.args if topology.router else ()
        every_s = flag_count(words, CHECK_EVERY_FLAG) or CHECK_EVERY_S
        failures = flag_count(words, FAILURES_FLAG) or FAILURES
        return replace(WITNESS, settles_s=float(every_s * (failures + 1)))

    def programs(self, topology: TopologySpec) -> Sequence[Program]:
        """Return ``vllm-router``."""
        router = topology.router
        if router is None or router.image:
            return ()
        name = router.executable or "vllm-router"
        return (Program(name, "pytest-pd engines install vllm-router"),)


def _argv(worker: Worker, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    router = worker.topology.router
    yield (router.executable if router else None) or "vllm-router"
    yield from _workers(worker, endpoints)
    yield from ("--host", worker.address, "--port", str(worker.ports["http"]))
    policy = (router.policy if router else None) or "consistent_hash"
    yield from ("--policy", NEUTRAL.get(policy, policy))
    if (ranks := _ranks(endpoints)) > 1:
        yield from ("--intra-node-data-parallel-size", str(ranks), "--api-key", NO_KEY)
    yield from ("--prometheus-host", worker.address)
    yield from ("--prometheus-port", str(worker.ports["metrics"]))
    yield from ("--worker-startup-check-interval", "1")
    yield from (CHECK_EVERY_FLAG, str(CHECK_EVERY_S), "--log-level", "debug")
    yield from worker.pool.args


def _workers(worker: Worker, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    prefill = [e.url for e in endpoints if e.role is Role.PREFILL]
    spec = worker.topology.kubernetes
    if prefill and spec and spec.front == "discovery":
        yield "--vllm-pd-disaggregation"
        yield from _discovery(worker, endpoints)
        return
    if not prefill:
        yield from ("--worker-urls", *(e.url for e in endpoints))
        return
    yield "--vllm-pd-disaggregation"
    for url in prefill:
        yield from ("--prefill", url)
    for endpoint in endpoints:
        if endpoint.role is Role.DECODE:
            yield from ("--decode", endpoint.url)


def _discovery(worker: Worker, endpoints: Sequence[Endpoint]) -> Iterator[str]:
    """Yield the flags of the router's own search for pods, those of this run alone.

    Raises:
        SpecError: the workers have different ports; it knows one for all.
    """
    ports = {e.url.rpartition(":")[2] for e in endpoints}
    if len(ports) > 1:
        raise SpecError(
            f"vllm-router finds pods on one port, and the workers have {len(ports)}: "
            f"{', '.join(sorted(ports))}.",
            hint="give prefill.port and decode.port the same value",
        )
    yield from ("--service-discovery", "--service-discovery-port", ports.pop())
    yield from ("--service-discovery-namespace", POD_NAMESPACE)
    for role in ("prefill", "decode"):
        run = f"pytest-pd/run={worker.site.run_id}"
        yield from (f"--{role}-selector", f"llm-d.ai/role={role}", run)


def _ranks(endpoints: Sequence[Endpoint]) -> int:
    """Return ranks behind each URL; the router knows one number for all of them.

    Raises:
        SpecError: the URLs differ.
    """
    counts = {len(endpoint.ranks) or 1 for endpoint in endpoints}
    if len(counts) > 1:
        found = ", ".join(f"{e.service}: {len(e.ranks) or 1}" for e in endpoints)
        raise SpecError(
            f"vllm-router addresses the same number of ranks at every URL ({found}).",
            hint="give prefill and decode the same dp per node, or use router proxy",
        )
    return counts.pop()


def _key_note(endpoints: Sequence[Endpoint]) -> str:
    return (
        f"vllm-router addresses {_ranks(endpoints)} ranks at each URL and wants an API "
        "key for that: clients send 'Authorization: Bearer none'."
    )
