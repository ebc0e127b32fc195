"""Dynamo's frontend: HTTP, tokeniser and router in one process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from pytest_pd.engines import dynamo_env
from pytest_pd.engines.dynamo import workers_of
from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Endpoint, ReadyPlan, Role
from pytest_pd.plan.seam import Launch, Program, RouterWitness, Worker
from pytest_pd.spec.topology import TopologySpec

POLICIES = {
    name.replace("-", "_"): name
    for name in (
        "round-robin",
        "random",
        "power-of-two",
        "kv",
        "least-loaded",
        "device-aware-weighted",
    )
}
ROUTED = "dynamo_component_router_input_sequence_tokens_count"
LOG_KV = (
    r'"message":"Selected worker".*"worker_id":'
    r'(?:(?P<prefill>\d+),"worker_type":"prefill"|(?P<decode>\d+),"worker_type":"decode")'
)
LOG_OTHER = r'"message":"Selected worker".*"worker_id":(?P<worker>\d+)'


class DynamoFrontend:
    """Turns the topology into a ``python -m dynamo.frontend`` command line."""

    name = "dynamo"

    def ports(self) -> Mapping[str, int]:
        """One port: API, health and metrics share it."""
        return {"http": 1}

    def check(self, topology: TopologySpec) -> tuple[str, ...]:
        """Refuse other engines and unknown policies."""
        if topology.engine.kind != "dynamo":
            raise SpecError(
                f"{topology.name}: Dynamo's frontend finds only Dynamo's workers, and "
                f"the engine is {topology.engine.kind!r}.",
                hint="router: {kind: vllm_router} or {kind: proxy}",
            )
        policy = topology.router.policy if topology.router else None
        if policy and policy.replace("-", "_") not in POLICIES:
            raise SpecError.unknown("router.policy", policy, POLICIES)
        return ()

    def launch(self, worker: Worker, endpoints: Sequence[Endpoint]) -> Launch:
        """Return argv and readiness: ready when all workers of each role are known."""
        model = quote(worker.topology.model.served_name, safe="")
        url = f"http://{worker.address}:{worker.ports['http']}"
        return Launch(
            argv=tuple(_argv(worker)),
            ready=ReadyPlan(
                kind="http",
                target=f"{url}/v1/models/{model}/ready",
                budget_s=3600.0,
                stall_s=3600.0,
                body=_all_workers(worker.topology),
            ),
            env={
                **dynamo_env.common(worker),
                "DYN_HTTP_BACKEND_STREAM_TIMEOUT_SECS": str(
                    dynamo_env.STREAM_TIMEOUT_S
                ),
            },
            env_unset=dynamo_env.ENV_UNSET,
        )

    def witness(self, topology: TopologySpec) -> RouterWitness:
        """Return what names the workers: counters, log and the answer's own words."""
        return RouterWitness(
            prefill_requests=f'{ROUTED}{{phase="prefill"}}',
            decode_requests=f'{ROUTED}{{phase="decode"}}',
            worker_label="",
            ask={"nvext": {"extra_fields": ["worker_id"]}},
            answer=(
                "nvext.worker_id.prefill_worker_id",
                "nvext.worker_id.decode_worker_id",
            ),
            log_pattern=LOG_KV if _policy(topology) == "kv" else LOG_OTHER,
        )

    def programs(self, topology: TopologySpec) -> Sequence[Program]:
        """Return the interpreter that has Dynamo."""
        router = topology.router
        if topology.engine.image or router is None or router.image:
            return ()
        name = _python(topology)
        return (Program(name, "pytest-pd engines install dynamo"),)


def _python(topology: TopologySpec) -> str:
    own = topology.router.executable if topology.router else None
    return dynamo_env.python(topology, own or topology.engine.executable)


def _policy(topology: TopologySpec) -> str:
    asked = topology.router.policy if topology.router else None
    return POLICIES[(asked or "round_robin").replace("-", "_")]


def _argv(worker: Worker) -> Iterator[str]:
    topology = worker.topology
    yield from (_python(topology), "-m", "dynamo.frontend")
    yield from ("--http-host", worker.address, "--http-port", str(worker.ports["http"]))
    yield from ("--router-mode", _policy(topology))
    yield from worker.pool.args


def _all_workers(topology: TopologySpec) -> str:
    """Return a pattern for the answer of ``/ready`` that names every worker.

    ``/ready`` says true as soon as one worker of each role is there.
    """
    counts = {
        name: pool.replicas * workers_of(pool)
        for name, role in (("prefill", Role.PREFILL), ("decode", Role.DECODE))
        if (pool := getattr(topology, role.value)) is not None
    }
    wanted = [f'(?=.*"{name}":{{"workers":{count},)' for name, count in counts.items()]
    return "".join(wanted)
