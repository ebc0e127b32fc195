"""Judged refits as text for a person, as JSON, and as measurements for the record."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path

from pytest_pd.measure.measurement import Json, Measurement
from pytest_pd.refit.judge import Outcome
from pytest_pd.refit.table import align

HEADER = (
    "refit",
    "status",
    "median ms",
    "min",
    "max",
    "first ms",
    "plan ms",
    "set-up ms",
    "bound ms",
    "x bound",
    "x plain",
    "MB remote",
    "local",
    "messages",
    "GB/s/target",
)


def _row(outcome: Outcome) -> tuple[str, ...]:
    times = outcome.refit_s or (float("nan"),)
    return (
        outcome.name,
        outcome.status,
        f"{outcome.median_s * 1e3:.1f}",
        f"{min(times) * 1e3:.1f}",
        f"{max(times) * 1e3:.1f}",
        f"{outcome.first_s * 1e3:.1f}",
        f"{outcome.plan_s * 1e3:.1f}",
        f"{outcome.service_s * 1e3:.0f}",
        f"{outcome.bound_s * 1e3:.2f}",
        f"{outcome.ratio:.1f}",
        "-" if isnan(outcome.plain_ratio) else f"{outcome.plain_ratio:.2f}",
        f"{outcome.remote_bytes / 1e6:.1f}",
        f"{outcome.local_bytes / 1e6:.1f}",
        str(outcome.messages),
        f"{outcome.gbyte_s_per_target:.3f}",
    )


def outcome_table(outcomes: Sequence[Outcome]) -> str:
    """Return a table of outcomes, and under it what is wrong or worth telling."""
    lines = [align([HEADER, *map(_row, outcomes)])]
    for outcome in outcomes:
        lines += [f"{outcome.name}: {problem}" for problem in outcome.problems[:10]]
        if len(outcome.problems) > 10:
            lines.append(f"{outcome.name}: and {len(outcome.problems) - 10} more")
        lines += [f"{outcome.name}: {line}" for line in findings(outcome)]
    return "\n".join(lines)


def findings(outcome: Outcome) -> Iterator[str]:
    """Yield what a reader should know about a verified time."""
    trend = outcome.growth
    if trend.is_finding:
        yield (
            f"times grow by {trend.slope_s * 1e3:.2f} ms per iteration, "
            f"{trend.relative:.0%} over the run (p = {trend.p_value:.1g})."
        )
    for name, told in outcome.opinions.items():
        yield f"second opinion {name}: {told}"


def order_lines(outcomes: Sequence[Outcome]) -> str:
    """Return measured order beside the order of the bounds; nothing for one."""
    good = [o for o in outcomes if o.status == "verified"]
    if len(good) < 2:
        return ""
    by_time = sorted(good, key=lambda o: o.median_s)
    by_bound = sorted(good, key=lambda o: o.bound_s)
    width = len("measured order:")
    return "".join(
        f"{label:<{width}} {' < '.join(o.name.rpartition('/')[2] for o in some)}\n"
        for label, some in (("measured order:", by_time), ("bound order:", by_bound))
    )


def save_outcomes(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write outcomes as JSON; a time never stands without its status."""
    path.write_text(json.dumps([asdict(o) for o in outcomes], indent=1) + "\n")


def measurement(outcome: Outcome) -> Measurement:
    """Return the slowest rank's times as a measurement, with all that qualifies it."""
    extra: dict[str, Json] = {
        "status": outcome.status,
        "problems": list(outcome.problems[:10]),
        "first_refit_s": outcome.first_s,
        "plan_build_s": outcome.plan_s,
        "service_init_s": outcome.service_s,
        "span_s": list(outcome.span_s),
        "bound_s": outcome.bound_s,
        "ratio_to_bound": outcome.ratio,
        "remote_bytes": outcome.remote_bytes,
        "local_bytes": outcome.local_bytes,
        "messages": outcome.messages,
        "checked_elements": outcome.checked_elements,
        "staging_bytes": outcome.staging_bytes,
        "memory_peak_bytes": outcome.memory_peak_bytes,
        "gbyte_per_s_per_target_rank": outcome.gbyte_s_per_target,
        "slope_s_per_iteration": outcome.growth.slope_s,
        "slope_p_value": outcome.growth.p_value,
        "opinions": dict(outcome.opinions),
    }
    return Measurement("refit", outcome.refit_s, extra=extra)


def measurements(outcome: Outcome) -> list[Measurement]:
    """Return all that was timed, believed or not: the refit, and a plain exchange."""
    made = [measurement(outcome)] if outcome.refit_s else []
    if outcome.plain_s:
        made.append(Measurement("plain_exchange", outcome.plain_s))
    return made
