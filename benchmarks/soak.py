"""Mixed load over two prefill and two decode workers, and a fault every minute.

    make soak                                  # one hour
    python benchmarks/soak.py --minutes 5 --every 20

Fails if a request is lost, an answer comes whole and wrong, the topology does not
recover, or memory, open files or processes of the harness grow. Prints a line for
each fault and one at the end.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from pytest_pd.fixtures.damage import Seen, ask_once, mend, prove, url_of  # noqa: E402
from pytest_pd.plan.model import Role, SiteFacts  # noqa: E402
from pytest_pd.probe.promptbook import PromptBook  # noqa: E402
from pytest_pd.provision.compose import plan_deployment  # noqa: E402
from pytest_pd.provision.deploy import deploy  # noqa: E402
from pytest_pd.provision.deployment import Deployment  # noqa: E402
from pytest_pd.provision.identity import marked_with  # noqa: E402
from pytest_pd.provision.local import LocalBackend  # noqa: E402
from pytest_pd.provision.rundir import RunDir, make_run_id  # noqa: E402
from pytest_pd.spec.cluster import ClusterSpec  # noqa: E402
from pytest_pd.spec.file import read_topology  # noqa: E402

TOPOLOGY = ROOT / "fixtures" / "topologies" / "local_2p2d_tcp.yaml"
PATIENCE_S = 30.0
RECOVERED_S = 60.0
FROZEN_S = 1.5
GROWTH_MIB = 32.0
GROWTH_FILES = 8


@dataclass(slots=True)
class Account:
    """Requests by what they came to; holds counts only, so that it cannot grow."""

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    last_right_begun_s: float = 0.0
    last_right_ended_s: float = 0.0
    tokens_in_flight: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        with self.lock:
            self.sent += 1

    def end(self, seen: Seen) -> None:
        with self.lock:
            self.outcomes[seen.outcome] += 1
            if seen.outcome == "right" and seen.begun_s > self.last_right_begun_s:
                self.last_right_begun_s = seen.begun_s
                self.last_right_ended_s = seen.ended_s


@dataclass(frozen=True, slots=True)
class Look:
    """The harness at one time."""

    rss_mib: float
    files: int
    threads: int
    processes: int


def look(run_id: str) -> Look:
    """Return what the harness holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Look(
        pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
        len(list(marked_with(f"{run_id}/"))),
    )


def client(
    deployment: Deployment, book: PromptBook, account: Account, number: int, stop: Any
) -> None:
    """Send requests of many shapes, one after the other, until told to stop."""
    import httpx

    draw = random.Random(number)
    index = 0
    with httpx.Client(
        base_url=deployment.url, timeout=PATIENCE_S, trust_env=False
    ) as http:
        while not stop.is_set():
            tokens = draw.choice([4, 16, 48])
            question = book.make(
                f"{number}:{index}",
                tokens=draw.choice([80, 200, 500]),
                answer_tokens=tokens,
            )
            index += 1
            account.begin()
            seen = ask_once(
                http,
                deployment.plan,
                question,
                tokens=tokens,
                traffic=account,  # type: ignore[arg-type]
            )
            account.end(seen)
            stop.wait(0.05 if seen.outcome == "right" else 0.2)


def strike(deployment: Deployment, name: str, how: str, account: Account) -> float:
    """Break one service, mend it, and return the seconds until all was well.

    Raises:
        SystemExit: no right answer came within a minute of its return.
    """
    process = deployment.processes[name]
    process.kill({"kill": 9, "freeze": 19}[how])
    prove(process, how, url_of(deployment, name))
    if how == "freeze":
        time.sleep(FROZEN_S)
    mend(deployment, name, how)
    back_s = time.monotonic()
    while account.last_right_begun_s < back_s:
        if time.monotonic() - back_s > RECOVERED_S:
            raise SystemExit(f"{name} {how}: no right answer for {RECOVERED_S:g} s")
        time.sleep(0.02)
    return account.last_right_ended_s - back_s


def soak(deployment: Deployment, args: argparse.Namespace) -> int:
    """Run load and faults for the time asked; return 1 if anything grew or got lost."""
    account, stop = Account(), threading.Event()
    book = PromptBook(deployment.plan.model_path, deployment.run_id)
    threads = [
        threading.Thread(
            target=client, args=(deployment, book, account, n, stop), daemon=True
        )
        for n in range(args.clients)
    ]
    for thread in threads:
        thread.start()
    looks, recoveries = [], []
    end_s = time.monotonic() + args.minutes * 60
    draw = random.Random(args.seed)
    roles = (Role.PREFILL, Role.DECODE, Role.ROUTER)
    names = [s.name for s in deployment.plan.services if s.role in roles]
    while time.monotonic() < end_s:
        time.sleep(args.every)
        name, how = draw.choice(names), draw.choice(["kill", "freeze"])
        recoveries.append(strike(deployment, name, how, account))
        looks.append(look(deployment.run_id))
        print(
            f"{len(looks):3} {how:6} {name:9} back in {recoveries[-1]:5.2f} s  "
            f"{account.sent} sent {dict(account.outcomes)}  {looks[-1]}",
            flush=True,
        )
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S + 10)
    return judge(account, looks, recoveries)


def judge(account: Account, looks: list[Look], recoveries: list[float]) -> int:
    """Print the balance; return 1 if it does not hold."""
    third = max(1, len(looks) // 3)
    early, late = looks[:third], looks[-third:]

    def grown(name: str) -> float:
        first, last = ([getattr(x, name) for x in side] for side in (early, late))
        return float(statistics.median(last) - statistics.median(first))

    lost = account.sent - sum(account.outcomes.values())
    bad = {
        "lost": lost,
        "wrong": account.outcomes["wrong"],
        "memory": grown("rss_mib") > GROWTH_MIB,
        "files": grown("files") > GROWTH_FILES,
        "processes": grown("processes") > 0,
        "threads": grown("threads") > 0,
    }
    print(
        f"{len(looks)} faults, {account.sent} requests {dict(account.outcomes)}, "
        f"{lost} lost; recovery {statistics.median(recoveries):.2f} s (median), "
        f"{max(recoveries):.2f} s (longest); harness grew by {grown('rss_mib'):.1f} "
        f"MiB, {grown('files'):.0f} files, {grown('processes'):.0f} processes, "
        f"{grown('threads'):.0f} threads; load {os.getloadavg()[0]:.1f}"
    )
    return int(any(bad.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cluster, spec = ClusterSpec(name="local"), read_topology(TOPOLOGY)
    with tempfile.TemporaryDirectory(prefix="pd-soak-") as folder:
        context = RunDir(Path(folder) / spec.name).context(
            make_run_id(), cluster.lease_ttl_s
        )

        def make_plan(site: SiteFacts) -> Any:
            return plan_deployment(spec, cluster, site)

        with deploy(make_plan, LocalBackend(), cluster, context) as deployment:
            return soak(deployment, args)


if __name__ == "__main__":
    raise SystemExit(main())
