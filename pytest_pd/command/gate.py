"""Judge a run against earlier ones; exit code 1 when it got slower.

examples:
  pytest-pd gate nightly.gate.yaml runs/20260801T020000Z-k3m9x2pq
  pytest suites --topology k2_2p1d --pd-gate nightly.gate.yaml      the same, in pytest

nightly.gate.yaml:
  baseline: ["runs/2026*"]
  metrics:
    ttft: {max_increase: 0.10}
    itl: {max_increase: 0.10, statistic: p99}
    output_token_time: {max_increase: 0.05}

Only equal topology (by hash), kind, hardware, engine, label and load are compared;
of a baseline run under another load it is told what differs. A figure
that is too noisy to judge is told, and fails with fail_on_noise: true; one that is
missing on either side fails with fail_on_missing: true. A gate that can judge nothing
fails, except for the first run that its baseline names. Runs that --pd-gate called
worse are in no glob's baseline: pytest-pd accept-baseline --force takes them in.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pd.command.runs import run_of
from pytest_pd.report.gate import judge, read_accepted, read_baseline
from pytest_pd.spec.gate import read_gate


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pytest-pd gate``."""
    parser.add_argument("gate", type=Path, metavar="FILE")
    parser.add_argument("run", type=Path, metavar="DIR")


def run(args: argparse.Namespace) -> int:
    """Print every judgement, worst first."""
    gate = read_gate(args.gate)
    record = run_of(args.run)
    baseline = read_baseline(gate, args.gate.parent, without=[args.run])
    accepted = read_accepted(gate, args.gate.parent)
    result = judge(gate, record, baseline, accepted)
    for line in result.lines:
        print(line)
    print(result.summary())
    return int(result.failed)
