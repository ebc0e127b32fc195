"""Run lm-eval against URLs: its own process, offline if told, progress, a budget."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from pytest_pd.errors import EngineMissing, InvalidRun, SpecError
from pytest_pd.evals import data
from pytest_pd.evals.sample import ERROR, Sample, read_samples
from pytest_pd.group import tied_group
from pytest_pd.installer.paths import find_program
from pytest_pd.provision.rundir import read_record
from pytest_pd.report.redact import redact, secrets_in
from pytest_pd.secret import is_secret
from pytest_pd.spec.evals import EvalFileSpec
from pytest_pd.spec.locate import HERE, Roots, find_path

DRIVER = Path(__file__).with_name("driver.py")
PROGRAM = "lm-eval-python"
LOG = "lm-eval.log"
PLAN = "job.json"
HUB_TOKEN = "HF_TOKEN"
CACHE = "hub"
"""Folder of a job for what the data-set library makes of data of our own."""
PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
MODELS = {"completions": "local-completions", "chat": "local-chat-completions"}
PARTIAL = ".partial"
"""Ends the name of the folder of a job that is not done, or came to nothing."""

Tick = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Side:
    """One deployment that is asked: ``pd``, ``aggregated``, ...; without ``/v1``."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation of one topology.

    Attributes:
        model: Name under which it is served.
        tokenizer: Folder or hub name; None for tasks that only generate.
        max_tokens: Longest prompt and answer together that lm-eval may send.
        seed: Of the generated documents; the spec's, or with a salt in it.
        stored: Side to the folder of its samples, where they are of an earlier run.
    """

    spec: EvalFileSpec
    model: str
    tokenizer: str | None
    sides: tuple[Side, ...]
    folder: Path
    max_tokens: int | None = None
    seed: str = ""
    roots: Roots = field(default=HERE)
    stored: Mapping[str, Path] = field(default_factory=dict)


def find_python() -> str:
    """Return the interpreter that has lm-eval: its own environment's, else ours.

    Raises:
        EngineMissing: there is none; says what installs it.
    """
    if found := find_program(PROGRAM):
        return found
    if find_spec("lm_eval") is not None:
        return sys.executable
    raise EngineMissing(
        "lm-eval is not on this machine.",
        hint="pytest-pd engines install lm-eval (or pip install 'pytest-pd[eval]')",
    )


def run(job: Job, on_tick: Tick = lambda fact: None) -> None:
    """Ask every side every task, one side after the other.

    Results and samples of lm-eval lie in ``<folder>/<side>/<tasks>/`` afterwards, in
    place of those of an earlier run. One that failed leaves those as they are, and
    what it has in ``<folder>.partial``.

    Raises:
        EngineMissing: lm-eval is not here.
        InvalidRun: it failed or took longer than the budget, with its last error; or
            none of its calls came to a result, and an earlier run did.
        SpecError: the folder holds what no earlier job wrote.
    """
    python, place = find_python(), job.folder
    check_ours(place)
    job = replace(job, folder=place.with_name(place.name + PARTIAL))
    clear(job.folder)
    prepare(job)
    argv = [python, str(DRIVER), str(job.folder / PLAN)]
    end_s = time.monotonic() + job.spec.budget_s
    with _started(argv, job) as process:
        code = _follow(process, end_s, on_tick)
    _mask(job.folder / LOG)
    shutil.rmtree(job.folder / CACHE, ignore_errors=True)
    if code is None:
        raise InvalidRun(
            f"Eval {job.spec.name!r} was not done after {job.spec.budget_s:g} s.",
            hint="raise budget_s in its file, or limit its tasks",
            where=job.folder / LOG,
        )
    if code:
        raise InvalidRun(
            f"lm-eval ended with code {code}: {last_error(job.folder / LOG)}",
            where=job.folder / LOG,
        )
    if place.exists():
        _refuse_empty(job)
        clear(place)
    job.folder.rename(place)
    _write_plan(replace(job, folder=place))


def _refuse_empty(job: Job) -> None:
    """Raise where no call has a result: a server that was gone, as a rule."""
    outs = [Path(call["out"]) for call in plan_of(job)["calls"]]
    errors = [out / ERROR for out in outs if (out / ERROR).is_file()]
    if len(errors) == len(outs):
        raise InvalidRun(
            f"lm-eval has no result: {errors[0].read_text('utf-8')[:400]}",
            hint="what an earlier run found there is left as it was",
            where=job.folder / LOG,
        )


def check_ours(folder: Path) -> None:
    """Refuse a folder that no job wrote; one that is not there or empty is free.

    Raises:
        SpecError: it holds something, and no job of ours.
    """
    if not os.path.lexists(folder):
        return
    empty = folder.is_dir() and not any(folder.iterdir())
    if folder.is_symlink() or not (empty or "calls" in read_record(folder / PLAN)):
        raise SpecError(
            f"{str(folder)!r} is there already, and is no folder of an eval: "
            "it is left as it is.",
            hint="move it away, or give another --out",
        )


def clear(folder: Path) -> None:
    """Remove the folder of an earlier job.

    Raises:
        SpecError: it holds something, and no job of ours.
    """
    check_ours(folder)
    shutil.rmtree(folder, ignore_errors=True)


def prepare(job: Job) -> None:
    """Lay out the plan and what lm-eval reads: tasks, generated documents, datasets.

    The plan comes first: whatever follows, the folder is known as ours.
    """
    job.folder.mkdir(parents=True)
    _write_plan(job)
    if job.spec.data:
        shutil.copytree(_path(job, job.spec.data), job.folder, dirs_exist_ok=True)
    if job.spec.include:
        shutil.copytree(_path(job, job.spec.include), job.folder / "tasks")
        data.write(job.folder / "data", job.seed or job.spec.seed)
    _write_plan(job)  # data may bring a file of that name


def _write_plan(job: Job) -> None:
    text = json.dumps(plan_of(job), indent=1)
    (job.folder / PLAN).write_text(text, encoding="utf-8")


def _path(job: Job, text: str) -> Path:
    found = find_path(text, job.roots)
    if found is None:
        raise InvalidRun(
            f"Eval {job.spec.name!r} names {text!r}, which is not there.",
            hint="give an existing folder",
        )
    return found


def plan_of(job: Job) -> dict[str, Any]:
    """Return what the driver is told: one call per side and kind of settings."""
    calls = [
        _call(job, side, tasks) for side in job.sides for tasks in groups(job.spec)
    ]
    return {"seed": job.spec.seed, "logprobs": job.spec.logprobs, "calls": calls}


def groups(spec: EvalFileSpec) -> list[tuple[str, ...]]:
    """Return the tasks that one call can run: limit and shots are the call's.

    Tasks of another metric go by themselves: choices are scored by prompt
    logprobs, which not every router passes on, and one failure ends a call.
    """
    found: dict[tuple[object, ...], list[str]] = {}
    for name, task in spec.tasks.items():
        found.setdefault((task.limit, task.shots, task.metric), []).append(name)
    return [tuple(names) for names in found.values()]


def out_of(side: Path, spec: EvalFileSpec, task: str) -> Path:
    """Return the folder that holds a task's results, in that of one side."""
    return side / next(call_name(names) for names in groups(spec) if task in names)


def call_name(tasks: Sequence[str]) -> str:
    """Return the folder of one call: the same whatever other calls there are."""
    return tasks[0] if len(tasks) == 1 else f"{tasks[0]}-and-{len(tasks) - 1}"


def samples_of(job: Job, task: str) -> dict[str, list[Sample]]:
    """Return the samples of one task by side, after `run`.

    Raises:
        InvalidRun: some are missing.
    """
    wanted = job.spec.tasks[task]
    places = {side.name: job.folder / side.name for side in job.sides} | dict(
        job.stored
    )
    folders = {name: out_of(place, job.spec, task) for name, place in places.items()}
    return {
        name: read_samples(folder, task, wanted.metric, wanted.filter)
        for name, folder in folders.items()
    }


def _call(job: Job, side: Side, tasks: Sequence[str]) -> dict[str, Any]:
    out = job.folder / side.name / call_name(tasks)
    return {
        "side": side.name,
        "tasks": ", ".join(tasks),
        "out": str(out),
        "argv": argv_of(job, side, tasks, out),
    }


def argv_of(job: Job, side: Side, tasks: Sequence[str], out: Path) -> list[str]:
    """Return lm-eval's command line; no secret is ever in it."""
    spec, first = job.spec, job.spec.tasks[tasks[0]]
    model_args = {
        "model": job.model,
        "base_url": side.url + PATHS[spec.api],
        "num_concurrent": spec.concurrency,
        "max_retries": 1,  # a request that failed is a finding, not a hiccup
        **_tokenizer(job),
        **({"max_length": job.max_tokens} if job.max_tokens else {}),
        **spec.model_args,
    }
    return [
        *("run", "--model", MODELS[spec.api]),
        *("--model_args", json.dumps(model_args)),
        *("--tasks", ",".join(tasks)),
        *("--output_path", str(out), "--log_samples", "--seed", str(spec.seed)),
        *(["--include_path", str(job.folder / "tasks")] if spec.include else []),
        *(["--limit", str(first.limit)] if first.limit else []),
        *(["--num_fewshot", str(first.shots)] if first.shots is not None else []),
        *(["--gen_kwargs", json.dumps(spec.sampling)] if spec.sampling else []),
        *(["--apply_chat_template"] if spec.api == "chat" else []),
    ]


def _tokenizer(job: Job) -> dict[str, Any]:
    """Return the tokenizer's arguments; lm-eval's own default asks the hub."""
    if job.tokenizer is None or job.spec.api == "chat":
        return {"tokenizer_backend": None}
    return {"tokenizer_backend": "huggingface", "tokenizer": job.tokenizer}


def environment(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """Return lm-eval's environment: ours without secrets, but for the hub's token.

    An ``OPENAI_API_KEY`` above all: lm-eval would send it to the servers under test.
    """
    env = {k: v for k, v in environ.items() if k == HUB_TOKEN or not is_secret(k, v)}
    env.pop("PYTHONPATH", None)
    env |= {"PYTHONNOUSERSITE": "1", "TOKENIZERS_PARALLELISM": "false"}
    env["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if job.spec.offline:
        names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
        env |= dict.fromkeys(names, "1")
        env.pop(HUB_TOKEN, None)
    if job.spec.include or job.spec.data:
        # data of our own would pile up in the user's cache; the rest of HF_HOME stays,
        # for it holds tokenizers and the token of a login
        env["HF_DATASETS_CACHE"] = str(job.folder / CACHE / "datasets")
        env["HF_MODULES_CACHE"] = str(job.folder / CACHE / "modules")
    return env


@contextmanager
def _started(argv: Sequence[str], job: Job) -> Iterator[subprocess.Popen[str]]:
    """Yield the driver, a session of its own; on exit it is gone, on every path."""
    with (
        (job.folder / LOG).open("w", encoding="utf-8") as sink,
        tied_group(
            argv,
            cwd=job.folder,
            env=environment(job, os.environ),
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
        ) as process,
    ):
        yield process


def _follow(process: subprocess.Popen[str], end_s: float, on_tick: Tick) -> int | None:
    """Pass progress on until the process ends; None when time is up first."""
    lines: queue.Queue[str | None] = queue.Queue()
    assert process.stdout is not None
    reader = threading.Thread(
        target=_read_lines, args=(process.stdout, lines), daemon=True
    )
    reader.start()
    while True:
        try:
            line = lines.get(timeout=max(0.0, end_s - time.monotonic()))
        except queue.Empty:
            return None
        if line is None:
            return process.wait()
        with suppress(ValueError):  # lm-eval prints its table there, too
            if isinstance(fact := json.loads(line), dict):
                on_tick(fact)


def _read_lines(source: IO[str], lines: queue.Queue[str | None]) -> None:
    with suppress(ValueError):  # closed when time is up
        for line in source:
            lines.put(line)
    lines.put(None)


def _mask(log: Path) -> None:
    """Take secrets out of the log, should the program have said one."""
    text = log.read_text(encoding="utf-8", errors="replace")
    clean = redact(text, secrets_in(os.environ))
    if clean != text:
        log.write_text(clean, encoding="utf-8")


def last_error(log: Path) -> str:
    """Return the line of a log that best says what went wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line.strip() for line in lines if line.strip() and line[0] not in " \t"]
    errors = [line for line in told if "Error" in line or "error" in line]
    return (errors or told or ["(its log is empty)"])[-1][:400]
