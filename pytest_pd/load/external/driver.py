"""Which foreign tools there are, where they are installed, and how they are run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_pd.errors import EngineMissing, MeasurementError, SpecError
from pytest_pd.group import tied_group
from pytest_pd.load.external import aiperf, guidellm, vllm_bench
from pytest_pd.load.external.foreign import ForeignRequest, foreign_result
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Lengths
from pytest_pd.load.result import LoadResult
from pytest_pd.load.target import Target

Command = Callable[[str, Target, LoadPoint, Lengths, Path, Path], list[str]]
"""Executable, target, point, lengths, tokenizer's folder, output's folder."""


@dataclass(frozen=True, slots=True)
class Driver:
    """A tool of another make.

    Attributes:
        name: On our command line.
        program: Executable to look for.
        command: Makes the words of a run.
        read: Reads the requests from the output's folder.
        result: File in that folder which it reads.
        install: What installs it.
        untold: What of `demands` its command line has no word for here.
        has_gaps: Its result holds the time of every event, not of first and last only.
    """

    name: str
    program: str
    command: Command
    read: Callable[[Path], list[ForeignRequest]]
    result: str
    install: str
    untold: frozenset[str] = frozenset()
    has_gaps: bool = True


DRIVERS = {
    "aiperf": Driver(
        *("aiperf", "aiperf", aiperf.command, aiperf.read, aiperf.RESULT),
        "pip install aiperf",
    ),
    "vllm": Driver(
        *("vllm", "vllm", vllm_bench.command, vllm_bench.read, vllm_bench.RESULT),
        "pip install vllm",
        untold=frozenset({"a duration", "constant arrivals"}),
    ),
    "guidellm": Driver(
        *("guidellm", "guidellm", guidellm.command, guidellm.read, guidellm.RESULT),
        "pip install guidellm",
        untold=frozenset({"gamma arrivals", "a seed", "answers that may end early"}),
        has_gaps=False,
    ),
}
MARGIN_S = 3600.0
"""A tool may take so long beyond the time that its point lasts by itself."""
UNTOLD = frozenset(
    {
        "a shared part of the prompts",
        "prompts of several lengths",
        "a ramp",
        "a time limit per request",
        "fields of the body",
        "headers",
        "a CA file",
    }
)
"""What none of them is told."""


def find_driver(name: str) -> Driver:
    """Return the driver of a name.

    Raises:
        SpecError: no tool is called so.
    """
    if name not in DRIVERS:
        raise SpecError.unknown("load tool", name, DRIVERS)
    return DRIVERS[name]


def demands(target: Target, point: LoadPoint, lengths: Lengths) -> Iterator[str]:
    """Yield, in words, what is asked for beside lengths, number and pace."""
    usual = LoadPoint()
    if lengths.shared_tokens:
        yield "a shared part of the prompts"
    if lengths.ratio != 1:
        yield "prompts of several lengths"
    if point.duration_s is not None:
        yield "a duration"
    if point.is_open:
        yield f"{point.arrivals.value} arrivals"
    if point.ramp_s:
        yield "a ramp"
    if point.seed != usual.seed:
        yield "a seed"
    if point.timeout_s != usual.timeout_s:
        yield "a time limit per request"
    if target.headers:
        yield "headers"
    if target.ca_file is not None:
        yield "a CA file"
    if target.body:
        yield "fields of the body"
    if not target.ignore_eos:
        yield "answers that may end early"


def check_demands(
    name: str, target: Target, point: LoadPoint, lengths: Lengths
) -> None:
    """Refuse what the tool would leave out while the record says otherwise.

    Raises:
        SpecError: with all that it is not told.
    """
    untold = UNTOLD | find_driver(name).untold
    found = [words for words in demands(target, point, lengths) if words in untold]
    if found:
        raise SpecError(
            f"{name} cannot be told here: {', '.join(found)}.",
            hint="leave that out, or let the load go out without another tool",
        )


def run_external(
    name: str,
    target: Target,
    point: LoadPoint,
    lengths: Lengths,
    *,
    tokenizer: Path,
    output: Path,
    executable: str = "",
    timeout_s: float | None = None,
) -> LoadResult:
    """Run a foreign tool on one point and return its records.

    Args:
        tokenizer: Folder of the model's tokenizer, which all of them want.
        output: Folder for what the tool writes, its own log included.
        executable: Path of the tool; empty looks on PATH.
        timeout_s: Limit; None for that of the point.

    Warm-up is the tool's own affair: the record has none.

    Raises:
        SpecError: the point asks for what the tool is not told.
        EngineMissing: the tool is not installed.
        MeasurementError: it failed, or wrote nothing that can be read.
    """
    check_demands(name, target, point, lengths)
    driver, point = find_driver(name), replace(point, warmup=0)
    wanted = executable or driver.program
    program = shutil.which(wanted)
    if not program:
        place = "is no program" if "/" in wanted else "is not on PATH"
        raise EngineMissing(f"{wanted!r} {place}.", hint=driver.install)
    output.mkdir(parents=True, exist_ok=True)
    words = driver.command(program, target, point, lengths, tokenizer, output)
    # what an earlier run left must not be read as the result of this one
    (output / driver.result).unlink(missing_ok=True)
    log, timeout_s = output / f"{name}.log", timeout_s or limit_s(point)
    try:
        with (
            log.open("wb") as sink,
            tied_group(words, stdout=sink, stderr=subprocess.STDOUT) as process,
        ):
            code = process.wait(timeout_s)
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(
            f"{name} did not end within {timeout_s:g} s.", where=log
        ) from error
    if code:
        raise MeasurementError(f"{name} ended with code {code}.", where=log)
    return foreign_result(name, driver.read(output), target, point)


def limit_s(point: LoadPoint) -> float:
    """Return how long a tool may take: what the point lasts by itself, and an hour."""
    paced_s = (point.requests or 0) / point.rate_per_s if point.rate_per_s else 0.0
    return (point.duration_s or paced_s) + MARGIN_S
