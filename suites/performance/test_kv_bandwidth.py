"""How fast the KV cache goes from prefill to decode: a floor under the bandwidth.

The floor is asserted on what decode's own counters say of its transfers. What TTFT
tells is recorded: it holds a step of decode as well.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pytest_pd.measure.latency import latencies
from pytest_pd.measure.measurement import Measurement
from pytest_pd.plan.expect import handed_over_tokens
from pytest_pd.plan.model import Role

pytestmark = pytest.mark.performance

FLOOR_BYTES_PER_S = {"cpu": 1e5}
"""By hardware. A CPU engine's floor only catches a hand-over that hangs."""
DEFAULT_FLOOR_BYTES_PER_S = 1e9


@pytest.mark.pd_points("bandwidth")
@pytest.mark.pd_needs("workers_answer")
def test_handover_bandwidth(case, deployment, offer, record, holds, watch):
    """TTFT through the router less TTFT of a worker alone bounds the hand-over."""
    plan = deployment.plan
    prefill = plan.of_role(Role.PREFILL)
    if not prefill or plan.expected.kv is None or plan.expected.transfer == "none":
        pytest.skip(
            "nothing is handed over here, or the shape of the model is not known"
        )
    workload, point = case

    with watch(may_lose=plan.expected.transfer != "pull") as seen:
        apart = holds(offer(workload, point))
    own = measured(seen.window)
    by_itself = replace(point, label=f"{point.label}-alone")
    alone = holds(offer(workload, by_itself, url=prefill[0].url, calibrates=False))

    tokens = handed_over_tokens(plan.expected, workload.prompt_tokens)[0]
    moved = tokens * plan.expected.kv.bytes_per_token
    took_s = float(np.median(latencies(apart).ttft))
    base_s = float(np.median(latencies(alone).ttft))
    extra_s = took_s - base_s
    record(
        [
            Measurement(
                "kv_handover_bound",
                (took_s / moved,),
                unit="s/byte",
                extra={
                    "bytes": moved,
                    "ttft_p50_s": took_s,
                    "ttft_p50_alone_s": base_s,
                    "difference_s": extra_s,
                    "bytes_per_s_at_least": moved / took_s,
                    "bytes_per_s_in_transfers": own,
                },
            )
        ]
    )
    # engines that play hardware run on CPUs, whatever they play
    kind = "cpu" if plan.rehearsal else plan.hardware
    floor = FLOOR_BYTES_PER_S.get(kind, DEFAULT_FLOOR_BYTES_PER_S)
    assert own is None or own >= floor, (
        f"{own:.3g} B/s in transfers is below the floor of {floor:.3g} B/s"
    )


def measured(window):
    """Return decode's bytes per second of transfers; None where none are counted."""
    names = window.names
    if not (names.transferred_bytes and names.transfer_seconds):
        return None
    moved = window.total(Role.DECODE, "transferred_bytes")
    seconds = window.total(Role.DECODE, "transfer_seconds")
    return moved / seconds if moved and seconds else 0.0
