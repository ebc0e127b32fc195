"""Troubles of P/D serving have names; a healthy window has none."""

from dataclasses import dataclass, field

import pytest

from pytest_pd.plan.model import Endpoint, Role
from pytest_pd.probe.logs import cause_of
from pytest_pd.probe.trouble import named_trouble

HEALTHY = {
    (Role.PREFILL, "requests"): 4.0,
    (Role.DECODE, "requests"): 4.0,
    (Role.PREFILL, "computed_tokens"): 400.0,
    (Role.PREFILL, "external_hits"): 0.0,
    (Role.DECODE, "external_tokens"): 384.0,
}


@dataclass
class FakeWindow:
    """Totals by role and counter, and what the router logged."""

    totals: dict = field(default_factory=dict)
    log: str = ""
    endpoints: tuple = (Endpoint("router", Role.ROUTER, "http://h:8000"),)

    @property
    def delta(self):
        return self

    def new_log(self, service: str) -> str:
        return self.log

    def total(self, role: Role, counter: str):
        return (HEALTHY | self.totals).get((role, counter))


def troubles(**changes) -> list[str]:
    found = named_trouble(FakeWindow(**changes), sent=4, prompt_tokens=400)
    return [text.partition(":")[0] for text in found]


def test_healthy_window_has_no_trouble():
    log = 'INFO: "POST /v1/completions HTTP/1.1" 200 OK'

    assert troubles(log=log) == []


def test_requests_past_the_router_are_named():
    assert troubles(totals={(Role.DECODE, "requests"): 0.0}) == ["bypass"]


def test_engines_that_count_nothing_are_not_accused():
    silent = {(role, "requests"): None for role in (Role.PREFILL, Role.DECODE)}

    assert troubles(totals=silent) == []


@pytest.mark.parametrize(
    "line",
    [
        'INFO: 127.0.0.1 - "POST /v1/chat/completions HTTP/1.1" 404 Not Found',
        "POST /v1/chat/completions -> 404",
        "request failed status=404",
    ],
)
def test_a_router_that_answers_404_is_named(line):
    assert troubles(log=f"{line}\n{line}\n") == ["404"]


def test_numbers_that_look_like_404_are_not():
    assert troubles(log="took 404 ms on port 8404\n") == []


def test_kv_of_an_earlier_run_is_named_by_prefills_hits():
    assert troubles(totals={(Role.PREFILL, "external_hits"): 96.0}) == ["old KV"]


def test_kv_of_an_earlier_run_is_named_when_nobody_computed():
    assert troubles(totals={(Role.PREFILL, "computed_tokens"): 0.0}) == ["old KV"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("PackageNotFoundError: No package metadata was found for vllm", "metadata"),
        ("RuntimeError: operator torchvision::nms does not exist", "torchvision"),
        ("Unsupported connector type: SharedStorageConnector", "ExampleConnector"),
        ("ModuleNotFoundError: No module named 'rate_limiter'", "kind: proxy"),
        ("Unable to maintain lease. Check etcd server status", "etcd is gone"),
        (
            "FileNotFoundError: No such file or directory: "
            "/kv/0a/model.layers.3.self_attn.attn.safetensors",
            "vanished while decode read it",
        ),
    ],
)
def test_lines_of_real_engines_have_their_own_cause(line, said):
    assert said in cause_of(line)
