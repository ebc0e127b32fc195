"""Do the gates catch ten damaged requests of two hundred, and leave clean runs alone?

Real requests through a real hand-over: the reference engine pulls KV over TCP, and its
fault switch flips bits of one block of one head of layers 1 to 4, for requests, blocks,
heads and layers that the trial's seed draws. Each trial asks 200 documents of pd_recall
that no other trial has asked, through the router and on the prefill worker alone, and
judges them as the suite does. With --truth the worker alone is not asked: its answers
are those that the task is built with.

    python benchmarks/evals/damage_trials.py --kind damaged --first 0 --trials 10
    python benchmarks/evals/damage_trials.py --table

Appends a line per trial to results.jsonl beside this file; ``--table`` sums them up.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx

from pytest_pd.evals.catalogue import read_eval
from pytest_pd.evals.data import ANSWER_WORDS, recall
from pytest_pd.evals.judge import AGGREGATED, PD, judge
from pytest_pd.evals.sample import Reply, Sample
from pytest_pd.plan.model import Role
from pytest_pd.provision import BACKENDS
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.provision.deploy import deploy
from pytest_pd.provision.deployment import Deployment
from pytest_pd.provision.rundir import RunDir, make_run_id
from pytest_pd.spec.evals import EvalFileSpec
from pytest_pd.spec.file import read_cluster, read_topology
from pytest_pd.spec.locate import HERE, find

HERE_DIR = Path(__file__).parent
RESULTS = HERE_DIR / "results.jsonl"
TASK, SAMPLES, DAMAGED, AT_ONCE = "pd_recall", 200, 10, 32
LAYERS, HEADS, BLOCKS = (1, 2, 3, 4), (0, 1), 22
TOPOLOGY = """\
name: trials
hardware: cpu
model: {path: fixtures/models/tiny, served_name: tiny}
engine: {kind: reference, args: [--allow-faults]}
kv_transfer: {connector: pull}
prefill: {replicas: 1}
decode: {replicas: 1}
router: {kind: proxy}
"""


def faults_of(kind: str, draw: random.Random) -> list[dict[str, object]]:
    """Return the faults of one trial: none, ten single ones, or all from one on."""
    if kind == "clean":
        return []
    if kind == "late":
        return [{"kind": "kv_bit_flip", "after": 100, **_place(draw)}]
    return [
        {"kind": "kv_bit_flip", "after": index, "count": 1, **_place(draw)}
        for index in draw.sample(range(SAMPLES), DAMAGED)
    ]


def _place(draw: random.Random) -> dict[str, object]:
    return {
        "layer": draw.choice(LAYERS),
        "head": draw.choice(HEADS),
        "block": draw.randrange(BLOCKS),  # of as many as the prompt has, by modulo
    }


def ask_all(url: str, documents: list[dict[str, object]]) -> list[Sample]:
    """Ask every document, `AT_ONCE` at a time, in one order."""
    begun_s = time.perf_counter()
    with httpx.Client(base_url=url, timeout=120.0, trust_env=False) as client:

        def one(index: int) -> Sample:
            start_s = time.perf_counter()
            answer = client.post(
                "/v1/completions",
                json={
                    "model": "tiny",
                    "prompt": documents[index]["prompt"],
                    "max_tokens": ANSWER_WORDS[TASK],
                    "temperature": 0,
                },
            )
            answer.raise_for_status()
            text = answer.json()["choices"][0]["text"]
            right = text.strip() == documents[index]["answer"]
            seconds = time.perf_counter() - start_s
            reply = Reply(index, start_s - begun_s, seconds)
            return Sample(TASK, index, float(right), (text,), str(index), (reply,))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, range(len(documents))))


def truth(asked: list[Sample], documents: list[dict[str, object]]) -> list[Sample]:
    """Return what aggregated serving answers: what the task is built with."""
    return [
        replace(sample, score=1.0, answers=(f" {document['answer']}",))
        for sample, document in zip(asked, documents, strict=True)
    ]


def trial(
    deployment: Deployment,
    spec: EvalFileSpec,
    kind: str,
    number: int,
    takes_truth: bool,
) -> dict[str, object]:
    """Carry out one trial and return its row."""
    draw = random.Random(f"{kind}:{number}")
    documents = [dict(document) for document in recall(f"trial:{kind}:{number}")]
    documents = draw.sample(documents, SAMPLES)
    decode = deployment.endpoints(Role.DECODE)[0].url
    httpx.post(
        f"{decode}/pd/faults", json=faults_of(kind, draw), trust_env=False
    ).raise_for_status()
    ours = ask_all(deployment.url, documents)
    whole = deployment.endpoints(Role.PREFILL)[0].url
    theirs = truth(ours, documents) if takes_truth else ask_all(whole, documents)
    sides = {PD: ours, AGGREGATED: theirs}
    found = judge(spec, TASK, sides, None, exact=True)
    return {
        "kind": kind,
        "number": number,
        "baseline": "constructed" if takes_truth else "asked",
        "lost": round(SAMPLES * (found.scores[AGGREGATED] - found.scores[PD])),
        **{name: str(gate.outcome) for name, gate in found.gates.items()},
        "paired_p": found.gates["paired"].verdict.p_value,
        "load": round(os.getloadavg()[0], 1),
    }


def run(kind: str, first: int, trials: int, budget_s: float, takes_truth: bool) -> None:
    """Bring the topology up and append a row per trial, until time is up."""
    end_s = time.monotonic() + budget_s
    spec = read_eval("shipped", HERE)
    (where,) = find("clusters", ["local"])
    cluster = read_cluster(where.path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trials.yaml"
        file.write_text(TOPOLOGY)
        place = RunDir(Path(folder) / "trials")
        with deploy(
            partial(plan_deployment, read_topology(file), cluster),
            BACKENDS.get(cluster.backend)(),
            cluster,
            place.context(make_run_id(), cluster.lease_ttl_s),
        ) as deployment:
            for number in range(first, first + trials):
                if time.monotonic() > end_s:
                    break
                row = trial(deployment, spec, kind, number, takes_truth)
                with RESULTS.open("a") as sink:
                    sink.write(json.dumps(row) + "\n")
                print(row, flush=True)


def table() -> str:
    """Return what the rows amount to, as Markdown."""
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    known = {(row["kind"], row["number"]): row for row in rows}
    lines = [
        "| trials | n | paired failed | identity failed | drift failed "
        "| answers lost (count: trials) |",
        "|---|---|---|---|---|---|",
    ]
    for kind in ("clean", "damaged", "late"):
        mine = [row for row in known.values() if row["kind"] == kind]
        if not mine:
            continue
        failed = [
            sum(row[gate] == "failed" for row in mine)
            for gate in ("paired", "identity", "drift")
        ]
        lost = sorted(Counter(row["lost"] for row in mine).items())
        told = ", ".join(f"{count}: {n}" for count, n in lost)
        words = [kind, len(mine), *failed, told]
        lines.append(f"| {' | '.join(map(str, words))} |")
    return "\n".join(lines)


def main() -> None:
    """Run trials, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=("clean", "damaged", "late"))
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--budget-s", type=float, default=150.0)
    parser.add_argument(
        "--truth", action="store_true", help="do not ask aggregated: it is known"
    )
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.kind:
        run(args.kind, args.first, args.trials, args.budget_s, args.truth)
    if args.table:
        print(table())


if __name__ == "__main__":
    main()
