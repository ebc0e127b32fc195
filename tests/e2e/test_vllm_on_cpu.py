"""Real vLLM on CPU: prefill and decode apart give the tokens of one engine."""

from pathlib import Path

import psutil
import pytest

from pytest_pd.errors import ProcessDied
from pytest_pd.plan.expect import handed_over_bytes
from pytest_pd.plan.model import Role
from pytest_pd.probe.window import Window, settle
from pytest_pd.provision.compose import engine_of, router_of
from pytest_pd.reference.prompts import make_recall
from tests.real_engine import (
    brought_up,
    complete,
    needs,
    spec_of,
    text_of,
    until_dead,
)

pytestmark = pytest.mark.timeout(400)

PROMPTS = [make_recall(f"vllm{i}", length_tokens=70 + 13 * i) for i in range(20)]
SETTLE_S = 12.0
BLOCK = 32


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def nixl(run_dir: Path):
    topology = spec_of("vllm_cpu_1p1d_nixl")
    needs("vllm", topology)
    with brought_up(topology, run_dir) as deployment:
        yield deployment, topology


@pytest.fixture(scope="module")
def shared(run_dir: Path):
    topology = spec_of("vllm_cpu_1p1d_shared")
    needs("vllm", topology)
    with brought_up(topology, run_dir) as deployment:
        yield deployment, topology


def watched(deployment, topology, ask) -> Window:
    """What the services saw while `ask` ran, once nothing moves any more."""
    names = engine_of(topology).evidence(topology)

    def moving(snapshot) -> float:
        queries = (names.requests, names.external_tokens, names.transferred_bytes)
        pages = snapshot.pages.values()
        return sum(page.total(q) or 0.0 for page in pages for q in queries if q)

    before = settle(deployment.evidence, moving)
    ask()
    after = settle(deployment.evidence, moving, timeout_s=SETTLE_S)
    witness = router_of(topology).witness(topology)
    return Window(after.since(before), deployment.plan.endpoints, names, witness)


def disagreements(deployment, prompts) -> list[int]:
    """Indices where P/D differs from the truth or from one engine alone."""
    alone = deployment.endpoints(Role.PREFILL)[0]
    return [
        index
        for index, prompt in enumerate(prompts)
        if text_of(complete(deployment, prompt.text)) != prompt.expected_text
        or text_of(complete(alone, prompt.text)) != prompt.expected_text
    ]


def test_nixl_gives_the_tokens_of_one_engine(nixl):
    deployment, _ = nixl

    assert disagreements(deployment, PROMPTS) == []


def test_nixl_pulls_every_prompt_token_and_no_byte_more(nixl):
    deployment, topology = nixl
    prompts = [make_recall(f"bytes{i}", length_tokens=70 + i) for i in range(6)]

    window = watched(
        deployment, topology, lambda: [complete(deployment, p.text) for p in prompts]
    )

    tokens = sum(prompt.prompt_tokens for prompt in prompts)
    assert window.total(Role.PREFILL, "computed_tokens") == tokens
    assert window.total(Role.DECODE, "external_tokens") == tokens
    assert window.total(Role.DECODE, "computed_tokens") == 0
    assert window.total(Role.DECODE, "transferred_bytes") == sum(
        handed_over_bytes(deployment.plan.expected, p.prompt_tokens) for p in prompts
    )
    assert window.total(Role.DECODE, "transfer_failures") == 0
    for role in (Role.PREFILL, Role.DECODE):
        (worker,) = deployment.endpoints(role)
        assert window.routed(role) == {worker.url: len(prompts)}


def test_wrong_remote_blocks_give_wrong_text(nixl):
    """The model can see a wrong block: without that the others prove nothing."""
    deployment, _ = nixl
    prefill, decode = (deployment.endpoints(r)[0] for r in (Role.PREFILL, Role.DECODE))
    prompt = make_recall("wrong", length_tokens=200)
    names = ("remote_engine_id", "remote_block_ids", "remote_host", "remote_port")
    asked = {"do_remote_decode": True, "do_remote_prefill": False}
    asked |= dict.fromkeys(names)
    answer = complete(prefill, prompt.text, max_tokens=1, kv_transfer_params=asked)
    params = answer["kv_transfer_params"]
    params["remote_block_ids"] = [ids[::-1] for ids in params["remote_block_ids"]]

    text = text_of(complete(decode, prompt.text, kv_transfer_params=params))

    assert text != prompt.expected_text


def test_shared_storage_gives_the_tokens_of_one_engine(shared):
    deployment, _ = shared

    assert disagreements(deployment, PROMPTS) == []


@pytest.mark.parametrize(
    ("tokens", "handed"),
    [(100, 96), (129, 0), (96, 64), (98, 96)],
    ids=["inside", "one-over-the-edge", "on-the-edge", "two-over"],
)
def test_shared_storage_hands_over_whole_blocks(shared, tokens, handed):
    """One token over an edge of a block is never found: vLLM looks up another key."""
    deployment, topology = shared
    prompt = make_recall(f"edge{tokens}", length_tokens=tokens)

    window = watched(
        deployment, topology, lambda: complete(deployment, prompt.text, max_tokens=4)
    )

    assert window.total(Role.DECODE, "external_tokens") == handed
    assert window.total(Role.DECODE, "computed_tokens") == tokens - handed


def test_shared_storage_logs_hit_and_injection(shared):
    deployment, topology = shared
    prompt = make_recall("logged", length_tokens=150)

    window = watched(
        deployment, topology, lambda: complete(deployment, prompt.text, max_tokens=4)
    )

    (decode,) = window.of_role(Role.DECODE).values()
    assert (decode.log_hit, decode.log_inject) == (1, 1)


def test_killing_the_api_server_leaves_no_engine_behind(run_dir: Path):
    topology = spec_of("vllm_cpu_aggregated")
    needs("vllm", topology)
    with brought_up(topology, run_dir) as deployment:
        process = deployment.processes["aggregated-0"]
        server = psutil.Process(int(process.identity()["pid"]))
        family = [server, *server.children(recursive=True)]
        assert len(family) >= 2, "the engine runs in the server's own process"

        server.kill()

        with pytest.raises(ProcessDied, match="'aggregated-0' was killed by signal 9"):
            until_dead(deployment)
        assert psutil.wait_procs(family, timeout=30)[1] == []
