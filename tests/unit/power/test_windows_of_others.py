"""A window holds what this test asked for: requests of others make it invalid."""

from __future__ import annotations

import httpx
import pytest

from pytest_pd.errors import InvalidRun
from pytest_pd.fixtures.witness import completions, unshared
from pytest_pd.plan.model import Endpoint, Role
from pytest_pd.plan.seam import EvidenceNames
from pytest_pd.probe.evidence import Snapshot
from pytest_pd.probe.metrics import parse_page
from pytest_pd.probe.window import Window, settle

NAMES = EvidenceNames(requests="served_total")


def window(served: int) -> Window:
    """Return a window in which decode served so many requests."""
    before, after = (
        Snapshot(0.0, 0.1, {"decode-0": parse_page(f"served_total {count}")})
        for count in (7, 7 + served)
    )
    places = [Endpoint("decode-0", Role.DECODE, "http://127.0.0.1:1")]
    return Window(after.since(before), places, NAMES)


def test_requests_of_others_make_a_window_invalid(tmp_path):
    with pytest.raises(InvalidRun, match="2 requests of others were served"):
        unshared(window(10), 8, tmp_path)


def test_a_window_of_our_own_requests_holds(tmp_path):
    unshared(window(8), 8, tmp_path)


def test_completions_are_counted_in_the_block_and_nothing_else():
    transport = httpx.MockTransport(lambda request: httpx.Response(200))
    with httpx.Client(base_url="http://127.0.0.1:1", transport=transport) as client:
        client.post("/v1/completions")
        with completions(client) as own:
            client.post("/v1/completions")
            client.post("/v1/chat/completions")
            client.post("/tokenize")
            client.get("/v1/models")
        client.post("/v1/completions")

    assert len(own) == 2


@pytest.mark.parametrize(("rest_s", "looks"), [(0.0, 4), (0.19, 7)])
def test_what_arrives_late_is_waited_for(rest_s, looks):
    """Values 0, 1, 2, 2, 2 ...: at rest from the third look on."""
    taken, now_s = [], [0.0]

    def take():
        taken.append(Snapshot(now_s[0], now_s[0], {}))
        return taken[-1]

    def sleep(seconds):
        now_s[0] += seconds

    settle(
        take,
        lambda _: min(len(taken), 3),
        rest_s=rest_s,
        clock=lambda: round(now_s[0], 3),
        sleep=sleep,
    )

    assert len(taken) == looks
