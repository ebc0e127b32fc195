"""``pytest-pd evals run URL``: lm-eval against servers that somebody else started."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.evals.baseline import Subject, find_expected, read_stores
from pytest_pd.evals.catalogue import metric_of, read_eval
from pytest_pd.evals.gate import Outcome
from pytest_pd.evals.judge import AGGREGATED, PD, TaskResult, judge
from pytest_pd.evals.record import keep
from pytest_pd.evals.runner import Job, Side, run, samples_of
from pytest_pd.probe.http import request
from pytest_pd.spec.evals import EvalFileSpec
from pytest_pd.spec.locate import HERE, catalogue

Say = Callable[[str], None]


def score(args: argparse.Namespace, say: Say) -> int:
    """Score one URL, by pairs where another is named; print a line per gate.

    Returns:
        1 when a gate failed or cannot tell, else 0.
    """
    url, against = args.url.rstrip("/"), args.against.rstrip("/")
    model = args.model or first_model(url)
    spec = changed(spec_of(args.task), args)
    sides = [Side(PD, url), *([Side(AGGREGATED, against)] if against else [])]
    folder = args.out.resolve() / spec.name
    job = Job(spec, model, args.tokenizer, tuple(sides), folder)
    run(job, ticker(say))
    subject = Subject(model, url, "unknown", version(url))
    store = read_stores(HERE)
    results = {}
    for task in spec.tasks:
        expected = find_expected(spec, task, subject, store)
        results[task] = judge(spec, task, samples_of(job, task), expected)
    record = {name: result.as_record() for name, result in results.items()}
    keep(args.out, subject, spec.name, {"seed": spec.seed, "tasks": record})
    return tell(results, args.out)


def tell(results: Mapping[str, TaskResult], out: Path) -> int:
    """Print scores and gates; 1 when one is not passed, references aside."""
    bad = False
    for task, result in results.items():
        scores = ", ".join(
            f"{name} {value:.4f}" for name, value in result.scores.items()
        )
        print(f"{task} ({result.metric}, {result.samples} samples): {scores}")
        for gate in result.gates.values():
            if gate.outcome is not Outcome.UNKNOWN:  # nobody has to know a URL
                print(f"  {gate}")
                bad |= gate.outcome is not Outcome.PASSED
    print(f"results and samples: {out}")
    return int(bad)


def spec_of(word: str) -> EvalFileSpec:
    """Return the eval file of that name or path, else one for a task of lm-eval."""
    if word in catalogue("evals", HERE) or word.endswith((".yaml", ".yml")):
        return read_eval(word, HERE)
    task = {**metric_of(word), "gates": [{"kind": "paired"}, {"kind": "drift"}]}
    return EvalFileSpec.model_validate(
        {"name": word, "offline": False, "tasks": {word: task}}
    )


def changed(spec: EvalFileSpec, args: argparse.Namespace) -> EvalFileSpec:
    """Return the eval with what the command line says instead of the file."""
    wish = {"limit": args.limit, "shots": args.shots}
    given = {name: value for name, value in wish.items() if value is not None}
    tasks = {name: task.model_copy(update=given) for name, task in spec.tasks.items()}
    update: dict[str, Any] = {"tasks": tasks}
    if args.concurrency:
        update["concurrency"] = args.concurrency
    if args.chat:
        update["api"] = "chat"
    if args.data:
        update["data"] = args.data
    if args.offline:
        update["offline"] = True
    return spec.model_copy(update=update)


def first_model(url: str) -> str:
    """Return the first model that a server lists.

    Raises:
        InfrastructureLost: it does not answer.
        SpecError: it lists none.
    """
    said = request(f"{url}/v1/models", timeout_s=10.0).json()
    models = said.get("data") if isinstance(said, dict) else None
    if not models:
        raise SpecError(f"{url}/v1/models lists no model.", hint="give --model NAME")
    return str(models[0]["id"])


def version(url: str) -> str:
    """Return what a server answers to ``/version``, or ``unknown``."""
    said = request(f"{url}/version", timeout_s=10.0).json()
    return str(said.get("version", "unknown")) if isinstance(said, dict) else "unknown"


def ticker(say: Say) -> Callable[[Mapping[str, Any]], None]:
    """Return a tick that says stages and every tenth of the requests."""
    told: dict[str, int] = {}

    def tick(fact: Mapping[str, Any]) -> None:
        if "stage" in fact:
            say(str(fact["stage"]))
            return
        tenth = 10 * fact["done"] // max(1, fact["total"])
        if told.get(fact["side"]) != tenth:
            told[fact["side"]] = tenth
            say(f"{fact['side']}: {fact['done']} of {fact['total']}")

    return tick
