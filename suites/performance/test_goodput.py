"""The highest rate at which users get what the SLO promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pytest_pd.load.workload import SweepPoint, at_rate
from pytest_pd.measure.goodput import (
    Trial,
    goodput,
    goodput_measurements,
    highest_rate,
    search_figures,
)
from pytest_pd.measure.latency import latencies

pytestmark = [pytest.mark.performance, pytest.mark.pd_level("standard")]

GOAL = 0.9
"""Share of all requests sent that have to meet the SLO."""
LOW_PER_S, HIGH_PER_S = 1.0, 1024.0
TRIAL_S = 3.0
TRIAL_TIMES = 10
"""A trial lasts as long as this many requests of an idle server, if that is longer."""
TRIAL_REQUESTS = 10
"""At least."""


def test_goodput(goodput_case, offer, record, holds):
    workload, slo = goodput_case
    trials, results, trial_s = [], {}, TRIAL_S

    def try_rate(rate: float) -> Trial:
        nonlocal trial_s
        load = replace(
            at_rate(workload, rate),
            requests=max(int(rate * trial_s), TRIAL_REQUESTS),
            duration_s=None,
            ramp_s=0.0,
            warmup=0,
        )
        point = SweepPoint(f"r{rate:.3g}", "standard", load)
        result = offer(workload, point, calibrates=False)
        if result.counts().get("ok"):  # a server that answers nobody has missed
            holds(result)
            if not trials:
                usual_s = float(np.median(latencies(result).e2e))
                trial_s = max(TRIAL_S, TRIAL_TIMES * usual_s)
        share = goodput(result, slo).share
        results[rate] = result
        trials.append(Trial(rate, share >= GOAL, share))
        return trials[-1]

    try:
        highest_rate(
            try_rate, low_per_s=LOW_PER_S, high_per_s=HIGH_PER_S, tolerance=0.25
        )
    finally:  # a rate that was good stays so though a later trial does not hold
        best = max((t.rate_per_s for t in trials if t.is_good), default=None)
        found = goodput_measurements(results[best], slo) if best else []
        record(
            replace(
                measurement,
                extra={
                    **{k: v for k, v in measurement.extra.items() if k != "load"},
                    "rate_per_s": best,
                    "goal_share": GOAL,
                    "workload": workload.name,
                    **search_figures(trials),
                },
            )
            for measurement in found
        )
    assert best, f"even {LOW_PER_S:g} request/s misses the SLO {slo}: {trials}"
