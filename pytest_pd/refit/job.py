"""What a worker is told and what it answers: plain data, JSON on both ways."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pytest_pd.errors import InvalidRun, PdError
from pytest_pd.refit.shape import Grid, TensorKind

JOB_FILE = "job.json"


@dataclass(frozen=True, slots=True)
class Job:
    """One refit to run and verify; the same file for every rank.

    Attributes:
        engine: ``gloo``, ``nccl``, ``nvshmem``, ``nixl`` or ``module:attribute``.
        planner: ``own`` or ``megatron``.
        domain_ranks: Ranks per scale-up domain, for the choice ``nearest``.
        rendezvous: ``env://`` or ``file:///path`` as torch.distributed means it.
        timeout_s: Longest wait for a peer.
        plain: Measure a plain exchange of the same bytes in turn with the refit.
        opinions: Second opinions to ask: ``round_trip``, ``dcp``.
        mutant: Name of a known-bad variant, to prove that the checks see it.
        launch: Fresh at each launch; reports of another one are not this job's.
    """

    name: str
    kinds: tuple[TensorKind, ...]
    source: Grid
    target: Grid
    rendezvous: str
    out_dir: str
    engine: str = "gloo"
    planner: str = "own"
    choice: str = "nearest"
    domain_ranks: int = 8
    element_bytes: int = 2
    warmup: int = 2
    iterations: int = 10
    timeout_s: float = 60.0
    device: str = "cpu"
    plain: bool = False
    opinions: tuple[str, ...] = ()
    mutant: str = ""
    launch: str = ""

    @property
    def world(self) -> int:
        """Processes that this job needs."""
        ends = (side.offset + side.ranks for side in (self.source, self.target))
        return max(ends)

    def save(self, path: Path) -> None:
        """Write the job as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def lay_out(job: Job) -> Path:
    """Write the job's file into its folder, cleared of what an earlier run left."""
    out = Path(job.out_dir)
    out.mkdir(parents=True, exist_ok=True)
    for stale in (*out.glob("rank-*.log"), out / "rendezvous"):
        stale.unlink(missing_ok=True)
    remove_reports(out)
    job.save(out / JOB_FILE)
    return out / JOB_FILE


def remove_reports(folder: Path) -> None:
    """Clear a folder of the reports of an earlier run."""
    for stale in folder.glob("rank-*.json"):
        stale.unlink(missing_ok=True)


def load_job(path: Path) -> Job:
    """Read a job that `Job.save` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    data["kinds"] = tuple(TensorKind(**kind) for kind in data["kinds"])
    data["source"], data["target"] = Grid(**data["source"]), Grid(**data["target"])
    data["opinions"] = tuple(data["opinions"])
    return Job(**data)


@dataclass(slots=True)
class ClockSync:
    """Offset of a rank's clock to rank 0's, with a bound on its error, in ns."""

    offset_ns: int = 0
    error_ns: int = 0
    at_ns: int = 0


@dataclass(slots=True)
class RankReport:
    """What one rank saw; times in seconds on its own clock.

    Attributes:
        samples_s: One per timed iteration: barrier to own last byte in place.
        starts_ns, stops_ns: The same moments, for alignment over ranks.
        sent, received: Bytes by peer, counted where they move, in one refit;
            the own rank stands for local copies.
        wrong: Findings of the bit check: iteration, tensor, elements, first place.
        memory_before_bytes, memory_peak_bytes: Of the process or the GPU.
        launch: Copied from the job.
    """

    rank: int
    pid: int = 0
    host: str = ""
    cores: int = 0
    service_init_s: float = 0.0
    plan_build_s: float = 0.0
    first_refit_s: float = 0.0
    warmup_s: list[float] = field(default_factory=list)
    samples_s: list[float] = field(default_factory=list)
    plain_s: list[float] = field(default_factory=list)
    starts_ns: list[int] = field(default_factory=list)
    stops_ns: list[int] = field(default_factory=list)
    sent: dict[int, int] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)
    messages: int = 0
    checked_elements: int = 0
    wrong: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    source_changed: list[str] = field(default_factory=list)
    opinions: dict[str, str] = field(default_factory=dict)
    target_bytes: int = 0
    staging_bytes: int = 0
    memory_before_bytes: int = 0
    memory_peak_bytes: int = 0
    memcpy_byte_s: float = 0.0
    loopback_byte_s: float = 0.0
    clock_start: ClockSync = field(default_factory=ClockSync)
    clock_stop: ClockSync = field(default_factory=ClockSync)
    versions: dict[str, str] = field(default_factory=dict)
    error: str = ""
    launch: str = ""

    def save(self, folder: Path) -> None:
        """Write the report in one step, so that a reader sees all of it or none."""
        path = report_path(folder, self.rank)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        partial.replace(path)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a job left behind.

    Attributes:
        ended: How what ran the ranks ended, if not well; no report can tell that.
    """

    reports: Sequence[RankReport]
    ended: str = ""


def left_by(found: Sequence[Ran | PdError]) -> list[Ran]:
    """Return what jobs left; the error of one does not cost what others measured.

    Raises:
        PdError: the first error, if no job left anything.
    """
    errors = [one for one in found if isinstance(one, PdError)]
    if errors and len(errors) == len(found):
        raise errors[0]
    return [_lost(one) if isinstance(one, PdError) else one for one in found]


def _lost(error: PdError) -> Ran:
    return Ran((), f"{error.fact} See {error.where}." if error.where else error.fact)


def report_path(folder: Path, rank: int) -> Path:
    """Return where rank `rank` writes its report."""
    return folder / f"rank-{rank}.json"


def load_report(path: Path) -> RankReport:
    """Read a report that a worker wrote.

    Raises:
        InvalidRun: the file is none, or a damaged one.
    """
    # not at the top: the workers' interpreter, which imports this, may not have it
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(RankReport).validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidRun(
            f"{path.name} is no report of a rank.",
            hint="its host or disk may have failed while it was written; run it again",
            where=path,
        ) from error
