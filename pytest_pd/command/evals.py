"""Score a server with lm-eval; show and accept the scores of a run.

examples:
  pytest-pd evals list
  pytest-pd evals run http://127.0.0.1:8000 gsm8k --concurrency 4 --limit 50
  pytest-pd evals run http://router:8000 gsm8k --against http://prefill-0:8000
  pytest-pd evals show runs/20260801T020000Z-k3m9x2pq
  pytest-pd evals accept runs/20260801T020000Z-k3m9x2pq --reason "first run on gb200"
  pytest-pd evals accept runs/20260801T020000Z-k3m9x2pq --reason "..." --yes
  pytest-pd evals store runs/20260801T020000Z-k3m9x2pq

Only `accept --yes` writes accepted scores, and only into a file that is reviewed like
any other; without --yes it shows what would change.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.evals.baseline import (
    STORE,
    AcceptedSpec,
    Subject,
    accepted_of,
    read_store,
    refuse_bad,
    write_store,
)
from pytest_pd.evals.judge import PD
from pytest_pd.evals.record import FOLDER, read_records
from pytest_pd.evals.stored import refuse_disaggregated, store
from pytest_pd.spec.locate import HERE, catalogue

EVALS = Path("fixtures") / "evals"
PROJECT = EVALS / STORE


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="eval files that are known")
    _configure_run(actions.add_parser("run", help="score a URL"))
    show = actions.add_parser("show", help="scores and gates of a run")
    show.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    keep = actions.add_parser("store", help="keep samples of aggregated serving")
    keep.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    keep.add_argument("--into", type=Path, default=EVALS, metavar="DIR")
    accept = actions.add_parser("accept", help="accept the scores of a run")
    accept.add_argument("run", type=Path, metavar="RUN", help="folder of a run")
    accept.add_argument("--reason", required=True, help="why these are right")
    accept.add_argument(
        "--store",
        type=Path,
        default=PROJECT,
        metavar="FILE",
        help=f"default: {PROJECT}",
    )
    accept.add_argument("--yes", action="store_true", help="write, not only show")
    accept.add_argument(
        "--even-so", action="store_true", help="though gates of the run failed"
    )


def _configure_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("url", help="base URL of the server, without /v1")
    add("task", nargs="?", default="gsm8k", help="eval file or task of lm-eval")
    add(
        "--against",
        default="",
        metavar="URL",
        help="compare pair by pair with this; asked twice where raw answers are "
        "compared, for they may differ no more than its own do",
    )
    add(
        "--exact",
        action="store_true",
        help="the same prompt has the same tokens at every call of both servers: "
        "--against is asked once, and one different answer fails",
    )
    add("--concurrency", type=int, metavar="N", help="requests in flight")
    add("--limit", type=int, metavar="N", help="first N samples of each task")
    add("--shots", type=int, metavar="N", help="examples before each question")
    add("--chat", action="store_true", help="use /v1/chat/completions")
    add("--model", default="", help="served name; default: what the server lists first")
    add("--tokenizer", metavar="DIR|NAME", help="for multiple-choice tasks")
    add("--offline", action="store_true", help="ask the hub for nothing")
    add("--data", metavar="DIR", help="datasets laid out as on the hub")
    add("--out", type=Path, default=Path("evals"), metavar="DIR", help="default: evals")


def run(args: argparse.Namespace) -> int:
    """Carry out one sub-command; 1 when a gate failed or could not tell."""
    if args.action == "list":
        for name, path in sorted(catalogue("evals", HERE).items()):
            print(f"{name:16} {path}")
        return 0
    if args.action == "run":
        from pytest_pd.command.evals_run import score

        return score(args, _say)
    if args.action == "show":
        return _show(args.run)
    if args.action == "store":
        return _store(args.run, args.into)
    return _accept(args)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show(run_dir: Path) -> int:
    bad = False
    for path, record in read_records(run_dir).items():
        subject = record["subject"]
        print(f"{path.parent.name}: {subject['model']}, {subject['engine']}")
        for name, task, result in results_of(record):
            if "error" in result:
                print(f"  {name}:{task} {result['error']}")
                bad = True
                continue
            print(f"  {name}:{task} {result['score']:.3f} of {result['samples']}")
            for kind, gate in result["gates"].items():
                print(f"    {kind}: {gate['outcome']}")
                bad |= gate["outcome"] != "passed"
    return int(bad)


def results_of(record: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield eval, task and result of one ``evals.json``."""
    for name, evaluation in record["evals"].items():
        for task, result in evaluation["tasks"].items():
            yield name, task, result


def _store(run_dir: Path, into: Path) -> int:
    for path, record in read_records(run_dir).items():
        subject = Subject(**record["subject"])
        for name, task, result in results_of(record):
            refuse_disaggregated(result.get("scores", ()))
            if "error" in result:
                raise SpecError(f"{name}:{task} was not scored: {result['error']}")
        for name in record["evals"]:
            side = path.parent / FOLDER / name / PD
            print(f"{name}: {store(side, into, subject, name)}")
    return 0


def _accept(args: argparse.Namespace) -> int:
    known = {entry.key(): entry for entry in read_store(args.store)}
    today = datetime.datetime.now(datetime.UTC).date()
    changed: list[AcceptedSpec] = []
    for record in read_records(args.run).values():
        if not args.even_so:
            refuse_bad(record)
        changed += accepted_of(record, args.run.resolve().name, args.reason, today)
    if not changed:
        raise SpecError(f"{args.run} holds no score that counts right answers.")
    for entry in changed:
        old = known.get(entry.key())
        before = f"{old.score:.4f} of {old.samples}" if old else "new"
        place = f"{entry.evaluation}:{entry.task} on {entry.topology}, {entry.engine}"
        print(f"{place}: {before} -> {entry.score:.4f} of {entry.samples}")
    if not args.yes:
        print(f"Nothing is written; --yes writes {args.store}.")
        return 0
    write_store(
        args.store, (known | {entry.key(): entry for entry in changed}).values()
    )
    print(f"{args.store}: {len(changed)} written; review and commit it.")
    return 0
