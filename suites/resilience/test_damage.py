"""A service dies or falls silent: what clients see, and how soon all is well again.

Each test first proves that the fault is there. Then it judges: nothing may come whole
and wrong, no request may be lost, nobody may wait for ever, and after recovery the
KV is handed over and right.
"""

from __future__ import annotations

import time

import httpx
import pytest

from pytest_pd.errors import ReadyTimeout
from pytest_pd.fixtures.damage import until_whole
from pytest_pd.measure.measurement import Measurement
from pytest_pd.plan.model import Role
from pytest_pd.provision.compose import router_of

pytestmark = [
    pytest.mark.fault,
    pytest.mark.measure,
    pytest.mark.pd_needs("disaggregated"),
]

ROLES = pytest.mark.parametrize("role", ["prefill", "decode", "router", "control"])
FROZEN_S = 1.5
DEAD_S = 1.0
TOLD_S = 30.0
"""Seconds within which the built-in proxy must tell that a role is gone."""
AFTER_PEER = 20
PATIENCE_S = 10.0
LONG_TOKENS = 200


@pytest.fixture
def victim(deployment, role):
    """Return the plan of the first service of the role."""
    found = [s for s in deployment.plan.services if s.role is Role(role)]
    if not found:
        pytest.skip(f"this topology has no {role}")
    return found[0]


@pytest.fixture(autouse=True)
def whole_again(deployment):
    """Leave the topology as it was: every service ready, the router serving."""
    yield
    if deployment.revive is None:
        return
    for name, process in deployment.processes.items():
        if process.exit_code() is not None:
            deployment.revive(name)
    until_whole(deployment)


@pytest.fixture
def until_right(deployment):
    """Wait for the first right answer to a request begun after a time."""

    def _until_right(flow, service, since_s):
        end_s = time.monotonic() + service.ready.budget_s + 30.0
        while time.monotonic() < end_s:
            if (seen := flow.first_right(since_s=since_s)) is not None:
                return seen
            time.sleep(0.02)
        raise ReadyTimeout(
            f"No right answer within {service.ready.budget_s + 30:g} s of "
            f"{service.name}'s return; clients saw {flow.summary()}.",
            hint="read the logs of the service and of the router",
            where=deployment.run_dir,
        )

    return _until_right


def judge(flow, *, may_hang=False):
    """Assert what holds under any fault."""
    summary = flow.summary()
    assert flow.count("wrong") == 0, f"whole and wrong answers: {summary}"
    assert len(flow.seen) == flow.sent, f"{flow.sent} sent, {summary} accounted for"
    if not may_hang:
        assert flow.count("hung") == 0, f"clients were left waiting: {summary}"


def recovery(flow, seen, at_s, back_s, role, how):
    """Return the benchmark entry of one recovery."""
    failed = flow.sent - flow.count("right")
    return Measurement(
        "recovery",
        (seen.ended_s - back_s,),
        extra={
            "role": role,
            "fault": how,
            "outage_s": seen.ended_s - at_s,
            "failed": failed,
            "sent": flow.sent,
            "outcomes": flow.summary(),
        },
    )


@ROLES
def test_killed_while_it_streams(victim, role, traffic, damage, until_right, record):
    with traffic() as flow:
        assert flow.tokens_in_flight.wait(30), "no token came before the fault"
        with damage(victim.name, "kill") as at_s:
            time.sleep(DEAD_S)
        back_s = time.monotonic()
        seen = until_right(flow, victim, back_s)

    judge(flow)
    record([recovery(flow, seen, at_s, back_s, role, "kill")])


@ROLES
def test_killed_while_idle(victim, role, traffic, damage, until_right, record):
    with damage(victim.name, "kill") as at_s:
        pass
    back_s = time.monotonic()
    with traffic() as flow:
        seen = until_right(flow, victim, back_s)

    judge(flow)
    record([recovery(flow, seen, at_s, back_s, role, "kill")])


@ROLES
def test_frozen_while_it_streams(victim, role, traffic, damage, until_right, record):
    """Connections stay open and nothing answers, as across a partition."""
    if victim.ready.kind != "http":
        pytest.skip(f"{victim.name} has no page that could prove that it is frozen")
    with traffic(patience_s=30.0) as flow:
        assert flow.tokens_in_flight.wait(30), "no token came before the fault"
        with damage(victim.name, "freeze") as at_s:
            time.sleep(FROZEN_S)
        back_s = time.monotonic()
        seen = until_right(flow, victim, back_s)

    judge(flow)
    record([recovery(flow, seen, at_s, back_s, role, "freeze")])


@pytest.mark.pd_needs("several_workers")
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_peers_take_over_from_a_dead_worker(
    victim, role, traffic, damage, deployment, topology
):
    """With a peer alive, only requests before the router learns of it may fail.

    Prefill keeps the KV that a dead decode worker never fetched until its lease ends:
    where the router is slow to learn, some clients wait for blocks that long.
    """
    if len(deployment.plan.of_role(Role(role))) < 2:
        pytest.skip(f"there is one {role} worker only")
    router = router_of(topology)
    settles_s = router.witness(topology).settles_s if router else 0.0
    with traffic(patience_s=max(PATIENCE_S, 3 * settles_s)) as flow:
        assert flow.tokens_in_flight.wait(30), "no token came before the fault"
        with damage(victim.name, "kill") as at_s:
            settled_s = at_s + settles_s
            end_s = settled_s + 60.0
            while flow.count("right", since_s=settled_s) < AFTER_PEER:
                if time.monotonic() > end_s:
                    break
                time.sleep(0.05)
            later = [s for s in list(flow.seen) if s.begun_s >= settled_s]

    judge(flow)
    bad = [s for s in later if s.outcome != "right"]
    assert len(later) >= AFTER_PEER, f"peers served {len(later)} requests in a minute"
    assert not bad, f"{settles_s:g} s after the death: {bad[:3]} of {len(later)}"


@pytest.mark.pd_needs("migrates", "several_workers")
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_requests_go_on_elsewhere(victim, role, traffic, damage, deployment, record):
    """Where migration is promised, a client does not notice that a worker died."""
    if len(deployment.plan.of_role(Role(role))) < 2:
        pytest.skip(f"there is one {role} worker only")
    with traffic(tokens=LONG_TOKENS) as flow:
        assert flow.tokens_in_flight.wait(30), "no token came before the fault"
        with damage(victim.name, "kill") as at_s:
            end_s = time.monotonic() + 60.0
            while flow.count("right", since_s=at_s) < AFTER_PEER:
                if time.monotonic() > end_s:
                    break
                time.sleep(0.05)

    judge(flow)
    summary, pieces = flow.summary(), [s.pieces for s in flow.seen]
    under_way = [s for s in flow.seen if s.begun_s < at_s < s.ended_s]
    assert under_way, "no request was under way when the worker died"
    assert set(summary) == {"right"}, f"clients saw the death: {summary}"
    assert set(pieces) == {LONG_TOKENS}, f"tokens were lost or doubled: {set(pieces)}"
    longest_s = max(s.ended_s - s.begun_s for s in under_way)
    record([Measurement("migrated_request", (longest_s,), extra={"role": role})])


@pytest.mark.pd_needs("handed_tokens", "known_answers")
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_kv_is_right_after_a_death(
    victim, role, traffic, damage, until_right, ask, prompts, watch, deployment
):
    """What a dead worker held is gone; what comes after it is handed over whole."""
    from pytest_pd.plan.expect import handed_over_tokens

    with damage(victim.name, "kill"):
        pass
    back_s = time.monotonic()
    with traffic(clients=1) as flow:
        until_right(flow, victim, back_s)

    wrong, handed, most, least = [], 0.0, 0, 0
    with watch() as seen:
        for index in range(16):
            question = prompts.make(index, tokens=100, answer_tokens=16)
            answer = ask(question.text, max_tokens=16)
            if answer.text != question.expected:
                wrong.append((index, answer.text, answer.error))
            right = handed_over_tokens(deployment.plan.expected, question.tokens)
            least, most = least + min(right), most + max(right)
    handed = seen.window.total(Role.DECODE, "external_tokens")

    assert not wrong, f"after the death of {victim.name}: {wrong[:3]}"
    assert least <= handed <= most, f"decode got {handed} tokens, not {least}..{most}"


@pytest.mark.pd_needs("router")
@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_the_router_tells_that_a_role_is_gone(
    victim, role, damage, deployment, topology
):
    """A health page that says all is well hides an outage from every balancer."""
    if topology.router.kind != "proxy":
        pytest.skip("this router's health page does not speak of its workers")
    if len(deployment.plan.of_role(Role(role))) > 1:
        pytest.skip(f"a peer of the {role} worker lives")
    page = f"{deployment.url}/readiness"
    whole = httpx.get(page, trust_env=False)
    assert whole.status_code == 200, f"{page} before the fault: {whole.text}"
    with damage(victim.name, "kill"):
        end_s = time.monotonic() + TOLD_S
        while (said := httpx.get(page, trust_env=False)).status_code == 200:
            if time.monotonic() > end_s:
                break
            time.sleep(0.05)

    assert said.status_code == 503, f"{page} without any {role} worker: {said.text}"
    assert role in said.json()["reason"], f"{page} blames another role: {said.text}"
