"""``pytest-pd evals run URL``: lm-eval against servers that somebody else started."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pytest_pd.errors import InfrastructureLost, PdError, SpecError
from pytest_pd.evals.baseline import Subject, find_expected, read_stores
from pytest_pd.evals.catalogue import BY_CHOICE, CHOICE, metric_of, read_eval
from pytest_pd.evals.evaluate import as_record, served_length
from pytest_pd.evals.gate import Outcome
from pytest_pd.evals.judge import AGAIN, AGGREGATED, PD, TaskResult, judge
from pytest_pd.evals.record import evals_of, keep
from pytest_pd.evals.runner import Job, Side, run, samples_of
from pytest_pd.probe.http import request
from pytest_pd.probe.served import first_served
from pytest_pd.spec.evals import EvalFileSpec
from pytest_pd.spec.locate import HERE, catalogue

Say = Callable[[str], None]


def score(args: argparse.Namespace, say: Say) -> int:
    """Score one URL, by pairs where another is named; print a line per gate.

    Returns:
        1 when a gate failed or cannot tell, else 0.

    Raises:
        SpecError: the folder holds scores of another server, or what no eval wrote,
            or a store of accepted scores is wrong.
    """
    url, against = args.url.rstrip("/"), args.against.rstrip("/")
    model = args.model or first_model(url)
    spec = countable(changed(spec_of(args.task), args), args.tokenizer, say)
    sides = sides_of(spec, url, against, exact=args.exact)
    folder = args.out.resolve() / spec.name
    length = served_length(url)
    job = Job(spec, model, args.tokenizer, sides, folder, max_tokens=length)
    subject = Subject(model, url, "unknown", version(url))
    evals_of(args.out, subject)  # another server's folder is refused before hours go by
    store = read_stores(HERE)
    run(job, ticker(say))
    results: dict[str, TaskResult | PdError] = {}
    for task in spec.tasks:
        expected = find_expected(spec, task, subject, store)
        try:
            results[task] = judge(
                spec, task, samples_of(job, task), expected, exact=args.exact
            )
        except PdError as error:  # the other tasks have their samples
            results[task] = error
    record = {name: as_record(result) for name, result in results.items()}
    keep(args.out, subject, spec.name, {"seed": spec.seed, "tasks": record})
    return tell(results, args.out)


def sides_of(
    spec: EvalFileSpec, url: str, against: str, *, exact: bool
) -> tuple[Side, ...]:
    """Return whom to ask; `against` twice where identity needs to know its noise.

    Raises:
        SpecError: tokens are said to be exact, and there is nobody to compare with.
    """
    if exact and not against:
        raise SpecError(
            "--exact says how two servers are compared, and there is one.",
            hint="give --against URL, or leave out --exact",
        )
    if not against:
        return (Side(PD, url),)
    sides = (Side(PD, url), Side(AGGREGATED, against))
    kinds = {gate.kind for task in spec.tasks.values() for gate in task.gates}
    if exact or "identity" not in kinds:
        return sides
    return (*sides, Side(AGAIN, against))


def countable(
    spec: EvalFileSpec, tokenizer: str | None, say: Say = lambda line: None
) -> EvalFileSpec:
    """Return the eval without tasks that count tokens where nobody can.

    Raises:
        SpecError: no task is left.
    """
    needing = [name for name, task in spec.tasks.items() if CHOICE in task.needs]
    if tokenizer or not needing:
        return spec
    names = ", ".join(needing)
    hint = "give --tokenizer, the folder or hub name of the model's tokenizer"
    if len(needing) == len(spec.tasks):
        raise SpecError(f"{names}: choices are scored by counted tokens.", hint=hint)
    say(f"not run: {names}, whose choices are scored by counted tokens; {hint}")
    kept = {name: task for name, task in spec.tasks.items() if name not in needing}
    return spec.model_copy(update={"tasks": kept})


def tell(results: Mapping[str, TaskResult | PdError], out: Path) -> int:
    """Print scores and gates; 1 when one is not passed, references aside."""
    bad = False
    for task, result in results.items():
        if isinstance(result, PdError):
            print(f"{task}: not scored. {result}")
            bad = True
            continue
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
    gates = [{"kind": "paired"}, {"kind": "drift"}]
    task: dict[str, Any] = {**metric_of(word), "gates": gates}
    if task["metric"] in BY_CHOICE:
        task["needs"] = [CHOICE]
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
    model = first_served(url)
    if not model:
        raise SpecError(f"{url}/v1/models lists no model.", hint="give --model NAME")
    return str(model["id"])


def version(url: str) -> str:
    """Return what a server answers to ``/version``, or ``unknown``."""
    try:
        said = request(f"{url}/version", timeout_s=10.0).json()
    except InfrastructureLost:
        return "unknown"
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
