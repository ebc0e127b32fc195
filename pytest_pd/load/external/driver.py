"""Which foreign tools there are, where they are installed, and how they are run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.errors import EngineMissing, MeasurementError, SpecError
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
        install: What installs it.
    """

    name: str
    program: str
    command: Command
    read: Callable[[Path], list[ForeignRequest]]
    install: str


DRIVERS = {
    "aiperf": Driver(
        "aiperf", "aiperf", aiperf.command, aiperf.read, "pip install aiperf"
    ),
    "vllm": Driver(
        "vllm", "vllm", vllm_bench.command, vllm_bench.read, "pip install vllm"
    ),
    "guidellm": Driver(
        "guidellm", "guidellm", guidellm.command, guidellm.read, "pip install guidellm"
    ),
}


def find_driver(name: str) -> Driver:
    """Return the driver of a name.

    Raises:
        SpecError: no tool is called so.
    """
    if name not in DRIVERS:
        raise SpecError.unknown("load tool", name, DRIVERS)
    return DRIVERS[name]


def run_external(
    name: str,
    target: Target,
    point: LoadPoint,
    lengths: Lengths,
    *,
    tokenizer: Path,
    output: Path,
    executable: str = "",
    timeout_s: float = 3600.0,
) -> LoadResult:
    """Run a foreign tool on one point and return its records.

    Args:
        tokenizer: Folder of the model's tokenizer, which all of them want.
        output: Folder for what the tool writes, its own log included.
        executable: Path of the tool; empty looks on PATH.

    Raises:
        EngineMissing: the tool is not installed.
        MeasurementError: it failed, or wrote nothing that can be read.
    """
    driver = find_driver(name)
    program = executable or shutil.which(driver.program)
    if not program:
        raise EngineMissing(f"{driver.program!r} is not on PATH.", hint=driver.install)
    output.mkdir(parents=True, exist_ok=True)
    words = driver.command(program, target, point, lengths, tokenizer, output)
    log = output / f"{name}.log"
    with log.open("wb") as sink:
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(
                f"{name} did not end within {timeout_s:g} s.", where=log
            ) from error
    if done.returncode:
        raise MeasurementError(f"{name} ended with code {done.returncode}.", where=log)
    return foreign_result(name, driver.read(output), target, point)
