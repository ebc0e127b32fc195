"""What load is offered: one point of a sweep."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pytest_pd.errors import SpecError


class Arrivals(StrEnum):
    """When requests start."""

    CLOSED = "closed"
    """A new request when one ends: `concurrency` are in flight."""
    CONSTANT = "constant"
    POISSON = "poisson"
    GAMMA = "gamma"
    BURST = "burst"
    """All at once."""
    TRACE = "trace"
    """At `Prompt.at_s`, as recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """One point of a sweep: how many requests, and when they start.

    Attributes:
        concurrency: Streams in flight; in an open loop the cap, None for none.
        requests: How many requests to measure; None means all prompts.
        duration_s: No request starts after this many seconds. Prompts that are used
            up earlier make the run invalid, unless `requests` says how many.
        arrivals: Closed loop, or the process that open-loop starts follow.
        rate_per_s: Mean rate of an open loop.
        burstiness: Shape of the gamma law of inter-arrival times: 1 is Poisson,
            below 1 is burstier, above 1 more regular (as `vllm bench`).
        ramp_s: Seconds in which the rate, or the concurrency, grows linearly
            from nothing to its value.
        warmup: Requests before the measured ones, at the same concurrency;
            recorded and kept apart.
        seed: Of the arrivals.
        timeout_s: A request not over after this long is a time-out.
        max_lateness_share: An open-loop run is invalid if the p99 of actual
            minus intended send time is above this share of the median TTFT.
        pace_by: The share of requests that reach steady state is judged from
            `min_waves` times the concurrency.
        min_waves: Requests per stream below which the run is invalid.
    """

    concurrency: int | None = 1
    requests: int | None = None
    duration_s: float | None = None
    arrivals: Arrivals = Arrivals.CLOSED
    rate_per_s: float | None = None
    burstiness: float = 1.0
    ramp_s: float = 0.0
    warmup: int = 0
    seed: int = 0
    timeout_s: float = 600.0
    max_lateness_share: float = 0.1
    min_waves: int = 4

    def __post_init__(self) -> None:
        _check(self)

    @property
    def is_open(self) -> bool:
        return self.arrivals is not Arrivals.CLOSED

    @property
    def limit_s(self) -> float | None:
        """Seconds that end the run; None where a number of requests does."""
        return self.duration_s if self.requests is None else None


def _check(point: LoadPoint) -> None:
    if point.concurrency is not None and point.concurrency < 1:
        raise SpecError(
            f"Concurrency {point.concurrency} is below 1.", hint="write 1 or more"
        )
    if not point.is_open and point.concurrency is None:
        raise SpecError(
            "A closed loop has no concurrency.",
            hint="set concurrency, or choose arrivals: poisson with rate_per_s",
        )
    paced = (Arrivals.CONSTANT, Arrivals.POISSON, Arrivals.GAMMA)
    if point.arrivals in paced and not (point.rate_per_s and point.rate_per_s > 0):
        raise SpecError(
            f"Arrivals {point.arrivals.value!r} have no rate.",
            hint="set rate_per_s above 0",
        )
    if point.burstiness <= 0 or point.timeout_s <= 0 or point.warmup < 0:
        raise SpecError(
            "burstiness and timeout_s are above 0, warmup is not below 0; got "
            f"{point.burstiness:g}, {point.timeout_s:g}, {point.warmup}."
        )
