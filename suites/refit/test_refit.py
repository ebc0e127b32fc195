"""Weights change their layout: every bit arrives, and how long that takes."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pd.refit.files import read_refit_cluster
from pytest_pd.refit.outcome import measurements
from pytest_pd.refit.plan import make_plan

pytestmark = pytest.mark.refit


@pytest.mark.pd_level("quick")
def test_plan_gives_every_rank_what_it_needs_once(scenario, refit_spec):
    """At full size: bytes planned to a rank are the bytes of its shards."""
    plan = make_plan(refit_spec.model, scenario, read_refit_cluster("h100_ib"))

    need = plan.cells.needed.T.astype(np.int64) @ plan.cells.elements
    assert plan.traffic.elements.sum(axis=0).tolist() == need.tolist()
    assert (plan.traffic.elements[~plan.cells.held.any(axis=0)] == 0).all()


def test_twin_is_bit_exact(scenario, move, believed, record):
    """The scaled scenario, over gloo; slowest rank of each refit is recorded."""
    outcome = move(scenario, "tiny")

    record(measurements(outcome))
    believed(outcome)


@pytest.mark.pd_level("standard")
def test_second_opinions_agree(scenario, move, believed):
    """The way back restores the source, and torch's checkpoint resharding agrees."""
    outcome = move(scenario, "tiny", iterations=1, opinions=("round_trip", "dcp"))

    assert believed(outcome).opinions == {"round_trip": "agrees", "dcp": "agrees"}


@pytest.mark.pd_level("full")
def test_mid_size_twin_beside_a_plain_exchange(scenario, move, believed, record):
    """About 200 MB, in turn with a plain exchange of the same bytes."""
    outcome = move(scenario, "mid", plain=True)

    record(measurements(outcome))
    believed(outcome)
