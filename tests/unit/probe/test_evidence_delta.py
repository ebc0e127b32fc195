"""A delta between two snapshots says what each worker did, or that it does not say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pd.errors import InvalidRun
from pytest_pd.fixtures.witness import whole
from pytest_pd.plan.model import Endpoint, Role
from pytest_pd.plan.seam import EvidenceNames
from pytest_pd.probe.evidence import Snapshot, take_snapshot
from pytest_pd.probe.metrics import parse_page
from pytest_pd.probe.window import Window
from tests.kit import free_ports

NAMES = EvidenceNames(
    prompt_tokens="prompt_total",
    transferred_bytes='bytes_total{dir="in"}',
    requests="requests_total",
    log_hit="External Cache Hit",
)


def snapshot(at_s=0.0, log_bytes=0, log=None, **pages):
    return Snapshot(
        at_s,
        at_s + 0.5,
        {name.replace("_", "-"): parse_page(text) for name, text in pages.items()},
        log_bytes={"decode-0": log_bytes},
        logs={"decode-0": log} if log else {},
    )


BEFORE = snapshot(
    decode_0='prompt_total 10\nbytes_total{dir="in"} 100\nbytes_total{dir="out"} 7'
)
AFTER = snapshot(
    2.0,
    decode_0='prompt_total 15\nbytes_total{dir="in"} 612\nbytes_total{dir="out"} 9',
)


def test_each_named_counter_has_its_growth():
    worker = AFTER.since(BEFORE).worker("decode-0", NAMES)

    assert (worker.prompt_tokens, worker.transferred_bytes) == (5, 512)


def test_what_an_engine_does_not_say_is_none():
    worker = AFTER.since(BEFORE).worker("decode-0", NAMES)

    assert worker.generated_tokens is None
    assert worker.requests is None
    assert worker.log_inject is None


def test_a_worker_without_a_page_says_nothing():
    assert AFTER.since(BEFORE).worker("prefill-9", NAMES).prompt_tokens is None


def test_the_window_has_a_length():
    assert AFTER.since(BEFORE).seconds == 2.0


def test_a_restart_in_the_window_is_told():
    after = snapshot(2.0, decode_0="prompt_total 3")

    assert after.since(BEFORE).worker("decode-0", NAMES).reset
    assert not AFTER.since(BEFORE).worker("decode-0", NAMES).reset


def test_log_lines_count_only_inside_the_window(tmp_path):
    log = tmp_path / "d.log"
    log.write_text("External Cache Hit!\n")
    before = snapshot(log=log, log_bytes=log.stat().st_size, decode_0="a 1")
    log.write_text("External Cache Hit!\nExternal Cache Hit!\nExternal Cache Hit!\n")
    after = snapshot(1.0, log=log, decode_0="a 1")

    assert after.since(before).worker("decode-0", NAMES).log_hit == 2


def test_a_router_counts_per_worker():
    before = snapshot(router='served{worker="a"} 1')
    after = snapshot(1.0, router='served{worker="a"} 4\nserved{worker="b"} 2')

    by_worker = after.since(before).by_label("router", "served", "worker")

    assert by_worker == {"a": 3, "b": 2}


def window(before, after, role=Role.DECODE):
    services = sorted({*before.pages, *after.pages})
    places = [Endpoint(name, role, "http://127.0.0.1:1") for name in services]
    return Window(after.since(before), places, NAMES)


@pytest.mark.parametrize(("own", "foreign"), [(7, 0), (5, 2), (9, 0)])
@pytest.mark.parametrize("role", [Role.DECODE, Role.AGGREGATED])
def test_requests_that_are_not_ours_are_foreign(role, own, foreign):
    before = snapshot(d_0="requests_total 1", d_1="requests_total 5")
    after = snapshot(1.0, d_0="requests_total 4", d_1="requests_total 9")

    assert window(before, after, role).foreign_requests(own) == foreign


def test_foreign_traffic_is_unknown_where_nobody_counts():
    assert window(BEFORE, AFTER).foreign_requests(1) is None


PLACES = [
    Endpoint("p-0", Role.PREFILL, "http://127.0.0.1:1"),
    Endpoint("d-0", Role.DECODE, "http://127.0.0.1:2"),
    Endpoint("router", Role.ROUTER, "http://127.0.0.1:3"),
]


def lost(before=(), after=(), **pages):
    """Return what is lost of a window whose pages could not be read by name."""
    known = {"p_0": "requests_total 4", "d_0": "requests_total 4", "router": "a 1"}

    def taken(at_s, failed, **changed):
        left = {k: v for k, v in {**known, **changed}.items() if k not in failed}
        failed = {name.replace("_", "-"): "timed out" for name in failed}
        return replace(snapshot(at_s, **left), failed=failed)

    delta = taken(1.0, after, **pages).since(taken(0.0, before))
    return Window(delta, PLACES, NAMES).lost()


def test_a_window_with_all_pages_has_lost_nothing():
    assert lost() == {}


@pytest.mark.parametrize(
    ("before", "after"), [((), ["p_0"]), (["p_0"], ()), (["p_0"], ["p_0"])]
)
def test_a_worker_without_a_page_is_lost(before, after):
    assert lost(before, after) == {"p-0": "timed out"}


def test_a_router_is_lost_only_when_it_had_a_page():
    assert lost((), ["router"]) == {"router": "timed out"}
    assert lost(["router"], ["router"]) == {}


def test_a_worker_that_began_anew_is_lost():
    (told,) = lost(d_0="requests_total 1").items()

    assert told[0] == "d-0"
    assert "restarted" in told[1]


def test_a_test_in_whose_window_counters_are_lost_is_invalid(tmp_path):
    page = {"d_0": "requests_total 4"}
    after = replace(snapshot(1.0, **page), failed={"p-0": "timed out"})
    seen = Window(after.since(snapshot(**page)), PLACES[:2], NAMES)

    with pytest.raises(InvalidRun, match="p-0: timed out"):
        whole(seen, tmp_path)


def test_a_page_that_cannot_be_read_is_told_and_not_zero():
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"

    taken = take_snapshot(
        [Endpoint("p-0", Role.PREFILL, url, metrics_url=f"{url}/metrics")], {}
    )

    assert taken.pages == {}
    assert "connection refused" in taken.failed["p-0"]


def test_no_endpoints_make_an_empty_snapshot(tmp_path):
    (tmp_path / "x.log").write_text("12345")

    taken = take_snapshot([], {"x": tmp_path / "x.log"})

    assert taken.log_bytes == {"x": 5}
