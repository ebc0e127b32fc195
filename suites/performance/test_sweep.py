"""Latency and throughput of each point of the topology's workloads."""

from __future__ import annotations

import pytest

from pytest_pd.measure.goodput import goodput
from pytest_pd.measure.latency import measurements, success_share

pytestmark = pytest.mark.performance


@pytest.mark.pd_points("closed")
def test_closed_loop(case, offer, record, holds, gpu_counts):
    workload, point = case

    result = offer(workload, point)

    if result.counts().get("ok"):
        record(measurements(result, gpus=gpu_counts))
    holds(result)
    assert success_share(result) == 1.0, result.counts()


@pytest.mark.pd_points("open")
def test_open_loop(case, offer, record, holds, gpu_counts):
    workload, point = case

    result = offer(workload, point)

    if result.counts().get("ok"):
        record(measurements(result, gpus=gpu_counts))
    holds(result)
    assert success_share(result) == 1.0, result.counts()
    if workload.slo is not None:
        assert goodput(result, workload.slo).sent == len(result.rows())
