"""The floor under the bandwidth is held by what decode's own counters say."""

from __future__ import annotations

import pytest

from pytest_pd.plan.model import Endpoint, Role
from pytest_pd.plan.seam import EvidenceNames
from pytest_pd.probe.evidence import Snapshot
from pytest_pd.probe.metrics import parse_page
from pytest_pd.probe.window import Window
from suites.performance.test_kv_bandwidth import measured

NAMES = EvidenceNames(transferred_bytes="bytes_sum", transfer_seconds="seconds_sum")
PLACES = [Endpoint(name, Role.DECODE, "http://127.0.0.1:1") for name in ("d-0", "d-1")]


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("bytes_sum 300\nseconds_sum 2.5", 100.0),
        ("bytes_sum 100\nseconds_sum 0.5", 0.0),
        ("bytes_sum 300", 0.0),
        ("", 0.0),
    ],
)
def test_bytes_per_second_are_those_inside_transfers(page, found):
    assert measured(window(page, NAMES)) == found


def test_a_connector_without_counters_says_nothing_of_its_speed():
    assert measured(window("", EvidenceNames())) is None


def window(page, names):
    """Return a window after which one of two decode workers has another page."""
    before = parse_page("bytes_sum 100\nseconds_sum 0.5")
    pages = {"d-0": before, "d-1": before}, {"d-0": parse_page(page), "d-1": before}
    begun, ended = (Snapshot(0.0, 0.1, each) for each in pages)

    return Window(ended.since(begun), PLACES, names)
