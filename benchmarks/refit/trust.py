"""How often does the verifier cry wolf, and does it see every mutant?

usage: python benchmarks/refit/trust.py kimi_k2 tiny --rounds 8 [--mutants]

Each round runs every scenario's twin cleanly; with --mutants each mutant is then put
into each scenario once. Prints counts and what any false alarm or missed mutant said;
exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from pytest_pd.refit.files import read_refit
from pytest_pd.refit.judge import Outcome
from pytest_pd.refit.run import Settings, run_jobs, twin_jobs
from pytest_pd.spec.refit import RefitScenario, RefitSpec

MUTANTS = (
    "clock_skew",
    "drop_message",
    "dtype_change",
    "expert_shift",
    "lost_message",
    "noop",
    "stale_tensor",
    "stride_one",
)


def run_all(
    spec: RefitSpec, scenarios: list[RefitScenario], size: str, settings: Settings
) -> list[Outcome]:
    """Run and judge scenarios in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pd-trust-") as scratch:
        folder = Path(scratch)
        return run_jobs(twin_jobs(spec, scenarios, size, folder, settings), folder)


def fits(mutant: str, scenario: RefitScenario) -> bool:
    """Whether the mutant changes anything: no stride is wrong if TP stays."""
    return mutant != "stride_one" or scenario.source.tp != scenario.target.tp


def main() -> int:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("size")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--mutants", action="store_true")
    args = parser.parse_args()
    spec = read_refit(args.name)
    everything = list(spec.scenarios)
    settings = Settings(iterations=5, warmup=1, timeout_s=30)
    clean: list[Outcome] = []
    for number in range(args.rounds):
        clean += run_all(spec, everything, args.size, settings)
        print(f"round {number + 1}: load {os.getloadavg()[0]:.1f}", flush=True)
    alarms = [o for o in clean if o.status != "verified"]
    print(f"clean runs {len(clean)}, false alarms {len(alarms)}")
    for outcome in alarms:
        print(f"  {outcome.name}: {outcome.status}: {outcome.problems[:3]}")
    missed = 0
    for mutant in MUTANTS if args.mutants else ():
        some = [s for s in everything if fits(mutant, s)]
        seen = run_all(spec, some, args.size, replace(settings, mutant=mutant))
        caught = [o for o in seen if o.status != "verified"]
        missed += len(seen) - len(caught)
        first = caught[0].problems[0] if caught else ""
        print(f"{mutant}: {len(caught)} of {len(seen)} caught; {first}", flush=True)
    return 1 if alarms or missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
