"""A counter that is not there is no zero: checks of the cache say so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pd.plan.model import Endpoint, Role
from pytest_pd.plan.seam import EvidenceNames
from pytest_pd.probe.evidence import Snapshot
from pytest_pd.probe.metrics import parse_page
from pytest_pd.probe.window import Window
from suites.correctness import test_cache as cache

NAMES = EvidenceNames(local_hits="hits_total", external_hits="external_total")
WHOLE = "hits_total 3\nexternal_total 0"


def window(*pages: str, names: EvidenceNames = NAMES) -> Window:
    """Return a window in which prefill workers show these pages at both its ends."""
    found = {f"prefill-{i}": parse_page(page) for i, page in enumerate(pages)}
    taken = Snapshot(0.0, 0.1, found)
    places = [Endpoint(name, Role.PREFILL, "http://127.0.0.1:1") for name in found]
    return Window(taken.since(taken), places, names)


def test_hits_of_all_workers_are_added():
    assert cache.hits(window(WHOLE, WHOLE)) == 0


def test_a_worker_that_counts_no_hits_fails_the_check():
    with pytest.raises(AssertionError, match="prefill worker has no local_hits"):
        cache.hits(window(WHOLE, "renamed_total 3"))


def test_workers_that_nobody_named_are_skipped():
    with pytest.raises(pytest.skip.Exception, match="no worker is named"):
        cache.hits(window())


def test_an_engine_that_names_no_hits_is_skipped():
    names = replace(NAMES, local_hits="")

    with pytest.raises(pytest.skip.Exception, match="does not count"):
        cache.hits(window(WHOLE, names=names))


def test_a_counter_that_is_absent_is_no_zero():
    with pytest.raises(AssertionError, match="external_hits"):
        cache.counted(window("hits_total 3"), Role.PREFILL, "external_hits")


@pytest.mark.parametrize(
    ("tokens", "block", "found"),
    [(160, 16, 144), (161, 16, 160), (160, 128, 128), (160, 256, 0)],
)
def test_a_repeated_prompt_is_found_in_whole_blocks(tokens, block, found):
    assert cache.in_whole_blocks(tokens, block) == found


def test_a_service_whose_log_is_elsewhere_is_told():
    assert window(WHOLE).without_log(Role.PREFILL) == ["prefill-0"]
    assert window(WHOLE).without_log(Role.ROUTER) == []
