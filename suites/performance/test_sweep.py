"""Latency and throughput of each point of the topology's workloads."""

from __future__ import annotations

import pytest

from pytest_pd.measure.goodput import goodput_measurements, slo_of
from pytest_pd.measure.latency import measurements, success_share

pytestmark = pytest.mark.performance


@pytest.fixture
def measured(topology, offer, record, gpu_counts):
    """Offer a point and record its metrics, with goodput where there is an SLO."""

    def _measured(workload, point):
        result = offer(workload, point)
        if result.counts().get("ok"):
            record(measurements(result, gpus=gpu_counts))
            if slo := slo_of(topology.slo, workload.slo):
                record(goodput_measurements(result, slo))
        return result

    return _measured


@pytest.mark.pd_points("closed")
def test_closed_loop(case, measured, holds):
    result = measured(*case)

    holds(result)
    assert success_share(result) == 1.0, result.counts()


@pytest.mark.pd_points("open")
def test_open_loop(case, measured, holds):
    result = measured(*case)

    holds(result)
    assert success_share(result) == 1.0, result.counts()
