"""From what the ranks saw to a verdict: verified, failed or invalid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from pytest_pd.refit.growth import Growth, growth
from pytest_pd.refit.job import ClockSync, Job, RankReport
from pytest_pd.refit.traffic import Traffic

Status = Literal["verified", "failed", "invalid"]

MEMORY_SLACK_BYTES = 64 << 20
"""What allocator, sockets and interpreter may take beside weights and staging."""

LOOPBACK_MARGIN = 4
"""By how much the best of a few loopback tries may still be too slow."""

CLOCK_DRIFT = 2e-3
"""Relative drift between two honest clocks: NTP slews by at most 500 ppm."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One judged refit; times in seconds, one sample per timed iteration.

    Attributes:
        refit_s: Slowest rank of each iteration, barrier to last byte in place.
        span_s: First start to last stop over all ranks, on aligned clocks.
        plain_s: Slowest rank of each plain exchange of the same bytes.
        bound_s: No honest refit is faster.
    """

    name: str
    status: Status
    problems: tuple[str, ...]
    refit_s: tuple[float, ...]
    span_s: tuple[float, ...]
    plain_s: tuple[float, ...]
    first_s: float
    plan_s: float
    service_s: float
    bound_s: float
    remote_bytes: int
    local_bytes: int
    messages: int
    checked_elements: int
    staging_bytes: int
    memory_peak_bytes: int
    target_ranks: int
    growth: Growth
    opinions: Mapping[str, str]

    @property
    def median_s(self) -> float:
        return median(self.refit_s) if self.refit_s else float("nan")

    @property
    def ratio(self) -> float:
        """How many times the bound the median takes."""
        return self.median_s / self.bound_s if self.bound_s else float("nan")

    @property
    def plain_ratio(self) -> float:
        """How many times the plain exchange the median takes; NaN without one."""
        if not self.plain_s:
            return float("nan")
        return self.median_s / median(self.plain_s)

    @property
    def gbyte_s_per_target(self) -> float:
        """Bytes received per target rank and second, in 10**9 bytes."""
        return self.remote_bytes / self.target_ranks / self.median_s / 1e9


def judge(
    job: Job,
    reports: Sequence[RankReport],
    planned: Traffic,
    *,
    bound_s: float | None = None,
    ended: str = "",
) -> Outcome:
    """Judge the reports of all ranks of a job.

    Args:
        ended: How what ran the ranks ended, if not well: a failure.
        planned: Traffic by the cell arithmetic, which the workers do not use.
        bound_s: Lower bound of the cluster; on CPU it comes from the reports.
    """
    remote = int(planned.remote_elements().sum()) * job.element_bytes
    local = planned.local * job.element_bytes
    bound = machine_bound_s(reports, remote, local) if bound_s is None else bound_s
    failures = [*filter(None, [ended]), *_failures(job, reports, planned)]
    times = _slowest([r.samples_s for r in reports])
    doubts = [] if failures else list(_doubts(job, reports, times, bound))
    return Outcome(
        name=job.name,
        status="failed" if failures else "invalid" if doubts else "verified",
        problems=tuple(failures or doubts),
        refit_s=times,
        span_s=_spans(reports),
        plain_s=_slowest([r.plain_s for r in reports]),
        first_s=max((r.first_refit_s for r in reports), default=0.0),
        plan_s=max((r.plan_build_s for r in reports), default=0.0),
        service_s=max((r.service_init_s for r in reports), default=0.0),
        bound_s=bound,
        remote_bytes=remote,
        local_bytes=local,
        messages=sum(r.messages for r in reports),
        checked_elements=sum(r.checked_elements for r in reports),
        staging_bytes=max((r.staging_bytes for r in reports), default=0),
        memory_peak_bytes=max((r.memory_peak_bytes for r in reports), default=0),
        target_ranks=job.target.ranks,
        growth=growth(times),
        opinions=_opinions(job, reports),
    )


def machine_bound_s(reports: Sequence[RankReport], remote: int, local: int) -> float:
    """Return the least time on one CPU host, from rates measured in the same run.

    Each remote byte is copied into the kernel and out of it, each local one once,
    on all cores at the best rate of a copy in cache; and no core pushes more
    through loopback than the best pair of ranks did, with a margin because other
    work may have disturbed every try of that pair.
    """
    cores = max((r.cores for r in reports), default=1)
    copying = max((r.memcpy_byte_s for r in reports), default=0.0)
    loopback = max((r.loopback_byte_s for r in reports), default=0.0)
    by_copy = (2 * remote + local) / (copying * cores) if copying else 0.0
    by_loopback = remote / (loopback * cores * LOOPBACK_MARGIN) if loopback else 0.0
    return max(by_copy, by_loopback)


def _failures(
    job: Job, reports: Sequence[RankReport], planned: Traffic
) -> Iterator[str]:
    seen = {report.rank for report in reports}
    for rank in range(job.world):
        if rank not in seen:
            yield f"rank {rank} gave no report."
    for report in reports:
        if report.error:
            yield f"rank {report.rank}: {report.error}"
    if any(report.error for report in reports) or len(seen) < job.world:
        return
    for report in reports:
        at = f"rank {report.rank}: "
        yield from (at + line for line in report.wrong)
        yield from (at + line for line in report.gaps)
        yield from (f"{at}source changed: {line}" for line in report.source_changed)
        yield from _miscounts(report, planned, job.element_bytes)
    for name, told in _opinions(job, reports).items():
        if told != "agrees":
            yield f"second opinion {name}: {told}"


def _miscounts(
    report: RankReport, planned: Traffic, element_bytes: int
) -> Iterator[str]:
    rank = report.rank
    for counted, row, verb in (
        (report.sent, planned.elements[rank], "sent to"),
        (report.received, planned.elements[:, rank], "received from"),
    ):
        for peer, elements in enumerate(row):
            wanted, got = int(elements) * element_bytes, counted.get(peer, 0)
            if wanted != got:
                yield (
                    f"rank {rank}: {got} bytes {verb} rank {peer}, planned {wanted}."
                )


def _doubts(
    job: Job, reports: Sequence[RankReport], times: Sequence[float], bound_s: float
) -> Iterator[str]:
    if len(times) < job.iterations:
        yield f"{len(times)} samples of {job.iterations} were taken."
    fastest = min(times, default=bound_s)
    if fastest < bound_s:
        yield (
            f"an iteration took {fastest * 1e3:.3f} ms, under the lower bound of "
            f"{bound_s * 1e3:.3f} ms: nothing that fast moved these bytes."
        )
    for report in reports:
        yield from _clock_doubts(report)
        yield from _memory_doubts(report)


def drift_ns(start: ClockSync, stop: ClockSync) -> tuple[int, int]:
    """Return how far two clocks went apart at least, and over which time, in ns."""
    apart = abs(stop.offset_ns - start.offset_ns) - start.error_ns - stop.error_ns
    return max(0, apart), stop.at_ns - start.at_ns


def _clock_doubts(report: RankReport) -> Iterator[str]:
    apart, elapsed = drift_ns(report.clock_start, report.clock_stop)
    if apart > CLOCK_DRIFT * max(elapsed, 1):
        yield (
            f"rank {report.rank}: its clock went {apart / 1e6:.1f} ms away from "
            f"rank 0's within {elapsed / 1e6:.0f} ms; its times mean nothing."
        )


def _memory_doubts(report: RankReport) -> Iterator[str]:
    used = report.memory_peak_bytes - report.memory_before_bytes
    allowed = report.target_bytes + report.staging_bytes + MEMORY_SLACK_BYTES
    if used > allowed:
        yield (
            f"rank {report.rank}: memory rose by {used} bytes, more than target + "
            f"declared staging + slack = {allowed}."
        )


def _slowest(by_rank: Sequence[Sequence[float]]) -> tuple[float, ...]:
    return tuple(max(row) for row in zip(*by_rank, strict=False))


def _spans(reports: Sequence[RankReport]) -> tuple[float, ...]:
    """Return first start to last stop of each refit; nothing where clocks are apart."""
    hosts = {report.host for report in reports}
    is_aligned = all(report.clock_start.at_ns for report in reports)
    if not reports or (len(hosts) > 1 and not is_aligned):
        return ()
    starts = [[t - r.clock_start.offset_ns for t in r.starts_ns] for r in reports]
    stops = [[t - r.clock_start.offset_ns for t in r.stops_ns] for r in reports]
    first = [min(row) for row in zip(*starts, strict=False)]
    last = [max(row) for row in zip(*stops, strict=False)]
    return tuple((b - a) / 1e9 for a, b in zip(first, last, strict=True))


def _opinions(job: Job, reports: Sequence[RankReport]) -> dict[str, str]:
    out = {}
    for name in job.opinions:
        told = {report.opinions.get(name, "was not given") for report in reports}
        bad = sorted(told - {"agrees"})
        out[name] = bad[0] if bad else "agrees"
    return out
