"""Kill pytest at random moments and see how long its services live.

    python benchmarks/kill_pytest.py --count 100
    python benchmarks/kill_pytest.py --on ssh --count 30
    python benchmarks/kill_pytest.py --on slurm --count 30
    python benchmarks/kill_pytest.py --count 5 --signal TERM
    python benchmarks/kill_pytest.py --victim any --count 30

Each round runs ``pytest suites/correctness/test_api.py`` on ``local_1p1d`` (rehearsed
over two real sshd hosts, or as a job of a real Slurm, all on loopback) and sends the
signal at a random moment from its start to the time that a whole run took. A round is
over when no process and no job of the run has been seen for a second; it fails if
that takes longer than `--limit`. With ``--victim any`` one of the processes that
pytest has started gets the signal (lease keeper, launchers, engines, router), and
pytest has to end by itself, without an internal error. Rows are appended to `--rows`
as they come.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402

from pytest_pd.installer.paths import bin_dir  # noqa: E402
from pytest_pd.provision.identity import marked_with  # noqa: E402
from pytest_pd.provision.rundir import id_of, runs_below  # noqa: E402

SUITE = ROOT / "suites" / "correctness" / "test_api.py"
LIMIT_S = {"local": 10.0, "ssh": 45.0, "slurm": 60.0}
TTL_S = 5.0
QUIET_S = 1.0
OUTPUT = "out.txt"
MISSED = "nothing"
MOST_S = 180.0


@dataclass(frozen=True, slots=True)
class Site:
    """Where pytest is told to go, and what the far side still holds of a run."""

    options: tuple[str, ...]
    jobs: Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class Round:
    """One round.

    Attributes:
        at_s: Age of pytest when it or its child was hit, or when it ended.
        gone_s: From pytest's end until nothing was left.
        broken: Pytest met an error of its own instead of telling ours.
    """

    at_s: float
    gone_s: float
    hit: str
    code: int
    broken: bool

    def line(self) -> str:
        told = ", INTERNALERROR" if self.broken else ""
        return (
            f"at {self.at_s:5.2f} s {self.hit}: exit {self.code}{told}, gone in "
            f"{self.gone_s:5.2f} s"
        )


@contextmanager
def site_of(kind: str, folder: Path) -> Iterator[Site]:
    """Start the services of a backend on loopback, for as long as the block lasts."""
    if kind == "local":
        yield Site((), lambda run_id: [])
        return
    common: dict[str, Any] = {"name": "bench", "backend": kind, "lease_ttl_s": TTL_S}
    if kind == "ssh":
        from tests.services_sshd import sshd_hosts

        with sshd_hosts(folder / "sshd", 2) as hosts:
            place = hosts.site(
                run_dir=str(folder / "remote"), package_python=sys.executable
            )
            section = place.model_dump(mode="json", exclude_defaults=True)
            yield Site(cluster(folder, common | {"ssh": section}), lambda run_id: [])
        return
    from tests.e2e.slurm_kit import RACK
    from tests.services_slurm import slurm_site

    with slurm_site(folder / "slurm", 4) as made, made.as_default():
        rack = {**RACK, **common, "nodes": 4, "slurm": {"partition": "batch"}}
        yield Site(cluster(folder, rack), made.jobs_of)


def cluster(folder: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """Write a cluster file and return the options that name it."""
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(content))
    return ("--pd-rehearse", "--pd-cluster", str(path))


def start(folder: Path, site: Site) -> subprocess.Popen[bytes]:
    """Start pytest with its runs below `folder`."""
    options = ["--pd-topology", "local_1p1d", "-q", "-p", "no:cacheprovider"]
    sink = (folder / OUTPUT).open("wb")
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", str(SUITE), *options, *site.options],
        cwd=folder,
        stdout=sink,
        stderr=sink,
        start_new_session=True,
        env={
            **os.environ,
            "PATH": f"{bin_dir()}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
    )


def left(folder: Path, site: Site) -> list[str]:
    """Return processes and jobs of every run below `folder`, pytest apart."""
    found: set[str] = set()
    for run in runs_below(folder / "runs"):
        if run_id := id_of(run):
            found |= {str(pid) for pid in marked_with(f"{run_id}/")}
            found |= {f"job {job}" for job in site.jobs(run_id)}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if bytes(folder) in words and int(entry.parent.name) != os.getpid():
            found.add(entry.parent.name)
    return sorted(found)


def gone_after_s(folder: Path, site: Site) -> float:
    """Wait until nothing is left, and still nothing is a moment later."""
    begun_s = last_s = time.monotonic()
    while time.monotonic() - last_s < QUIET_S:
        if left(folder, site):
            last_s = time.monotonic()
        if last_s - begun_s > MOST_S:
            break
        time.sleep(0.05)
    return last_s - begun_s


def victim(child: subprocess.Popen[bytes], draw: random.Random) -> tuple[int, str]:
    """Return one of the processes below pytest and its words; pytest if it has none."""
    import psutil

    found = psutil.Process(child.pid).children(recursive=True)
    if not found:
        return child.pid, "pytest"
    chosen = draw.choice(found)
    try:
        words = " ".join(Path(word).name for word in chosen.cmdline()[:6])
    except psutil.Error:
        words = "gone"
    return chosen.pid, words


def one_round(
    delay_s: float, number: int, site: Site, draw: random.Random | None = None
) -> Round:
    """Run pytest, send the signal, and wait until nothing is left.

    Args:
        draw: Chooses among the processes below pytest; None hits pytest itself.
    """
    with tempfile.TemporaryDirectory(prefix="pd-kill-") as name:
        folder, begun_s = Path(name), time.monotonic()
        child, hit = start(folder, site), MISSED
        try:
            child.wait(delay_s)
        except subprocess.TimeoutExpired:
            pid, hit = victim(child, draw) if draw else (child.pid, "pytest")
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        lived_s = time.monotonic() - begun_s
        child.wait(MOST_S)
        gone_s = gone_after_s(folder, site)
        broken = "INTERNALERROR" in (folder / OUTPUT).read_text(errors="replace")
        return Round(lived_s, gone_s, hit, child.returncode, broken)


def rounds(args: argparse.Namespace, site: Site) -> list[Round]:
    """Run rounds until `--count` were hit, print and keep each that was.

    A round whose pytest had ended before the signal says nothing, and shortens the
    next ones; as many of them as `--count` end it.
    """
    number = getattr(signal, f"SIG{args.signal}")
    longest_s = args.longest or one_round(MOST_S, number, site).at_s
    print(f"{args.on}: a whole run takes {longest_s:.1f} s", flush=True)
    draw, found = random.Random(args.seed), []
    others = draw if args.victim == "any" else None
    end_s = time.monotonic() + args.seconds
    missed = 0
    while len(found) < args.count > missed and time.monotonic() < end_s:
        done = one_round(draw.uniform(0.0, longest_s), number, site, others)
        if done.hit == MISSED:
            missed, longest_s = missed + 1, min(longest_s, done.at_s)
            continue
        found.append(done)
        print(f"{len(found):3} {done.line()}", flush=True)
        keep(args, done)
    return found


def keep(args: argparse.Namespace, done: Round) -> None:
    """Append a row to the file of rows, if there is one."""
    if args.rows is None:
        return
    row = {
        "on": args.on,
        "signal": args.signal,
        "at_s": round(done.at_s, 2),
        "gone_s": round(done.gone_s, 2),
        "hit": done.hit,
        "exit": done.code,
        "broken": done.broken,
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": round(os.getloadavg()[0], 1),
    }
    with args.rows.open("a") as file:
        file.write(json.dumps(row) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", choices=sorted(LIMIT_S), default="local")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--signal", default="KILL")
    parser.add_argument("--victim", choices=("pytest", "any"), default="pytest")
    parser.add_argument("--longest", type=float, default=0.0, help="0: a whole run")
    parser.add_argument("--limit", type=float, default=0.0, help="0: by backend")
    parser.add_argument("--for", dest="seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=None)
    args = parser.parse_args()
    limit_s = args.limit or LIMIT_S[args.on]
    with (
        tempfile.TemporaryDirectory(prefix="pd-far-") as name,
        site_of(args.on, Path(name)) as site,
    ):
        found = rounds(args, site)
    seconds = [each.gone_s for each in found]
    late = sum(each > limit_s for each in seconds)
    broken = sum(each.broken for each in found)
    print(
        f"{args.on}: {len(seconds)} x SIG{args.signal} of {args.victim}: nothing left "
        f"after median "
        f"{statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s, "
        f"over {limit_s:g} s: {late}; internal errors: {broken}; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    return 1 if late or broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
