"""The highest rate at which users get what the SLO promises."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.workload import SweepPoint, read_workload
from pytest_pd.measure.goodput import Trial, goodput, highest_rate
from pytest_pd.measure.measurement import Measurement
from pytest_pd.spec.slo import SloSpec

pytestmark = [pytest.mark.performance, pytest.mark.pd_level("standard")]

GOAL = 0.9
"""Share of all requests sent that have to meet the SLO."""
TRIAL_S = 3.0
DEFAULT_SLO = SloSpec(ttft_ms=500, tpot_ms=100)


def test_goodput(topology, offer, record, prompt_source):
    workload = read_workload("local_open_loop")
    slo = topology.slo or workload.slo or DEFAULT_SLO
    results = []

    def try_rate(rate: float) -> Trial:
        load = LoadPoint(
            concurrency=None,
            arrivals=Arrivals.POISSON,
            rate_per_s=rate,
            requests=max(int(rate * TRIAL_S), 10),
            max_lateness_share=0.5,
        )
        point = SweepPoint(f"r{rate:.3g}", "standard", load)
        result = offer(workload, point, calibrates=False)
        found = goodput(result, slo)
        results.append((rate, result, found))
        return Trial(rate, result.is_valid and found.share >= GOAL, found.share)

    best, trials = highest_rate(
        try_rate, low_per_s=1.0, high_per_s=256.0, tolerance=0.25, max_trials=8
    )

    assert best is not None, f"even 1 request/s misses the SLO: {trials}"
    found = next(found for rate, _, found in results if rate == best)
    record(
        [
            Measurement(
                "goodput_time",
                (1 / found.requests_per_s,),
                unit="s/request",
                extra={
                    "goodput_requests_per_s": found.requests_per_s,
                    "rate_per_s": best,
                    "goal_share": GOAL,
                    "slo": slo.model_dump(),
                    "trials": [
                        {"rate_per_s": t.rate_per_s, "share": t.share} for t in trials
                    ],
                },
            )
        ]
    )
    assert replace(trials[0]).is_good
