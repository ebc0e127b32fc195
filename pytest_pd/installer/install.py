"""Carry out a recipe: resumable, one at a time per engine, marked when whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from pytest_pd.errors import EngineMissing, ProvisionError
from pytest_pd.files import write_whole
from pytest_pd.installer import paths
from pytest_pd.installer.recipe import (
    Pip,
    PipRemove,
    PlaceFile,
    Recipe,
    Replace,
    Step,
)

MARKER = "installed.json"
LOCKS = Path(__file__).parent / "locks"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose about an installation.

    Attributes:
        torch_index: Index that offers ``torch==...+cpu``; empty for pip's own.
        locked: Hold every dependency at the version recorded in ``locks/``.
        python: Interpreter the environment is made with.
        wait_s: Seconds to wait for another installation of the same engine.
    """

    torch_index: str = ""
    locked: bool = True
    python: str = sys.executable
    wait_s: float = 1800.0


def home(recipe: Recipe) -> Path:
    """Return the folder of the engine's environment, whether it exists or not."""
    return paths.engines_dir() / recipe.folder


def marker(recipe: Recipe) -> Mapping[str, object] | None:
    """Return what a finished installation recorded, or None when there is none.

    A marker that cannot be read is none: the installation goes over its steps again.
    """
    try:
        found = json.loads((home(recipe) / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def install(recipe: Recipe, options: Options, say: Say = print) -> Mapping[str, object]:
    """Bring the engine onto this machine and return its marker.

    Steps that an interrupted run has finished are not repeated. The marker is
    written last, so that half an installation is never taken for a whole one.

    Raises:
        ProvisionError: a step failed; names its log and what to do.
    """
    place = home(recipe)
    place.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{place}.lock", timeout=options.wait_s):
            done = marker(recipe)
            if done is not None and done.get("recipe") == recipe.identity:
                write_wrappers(recipe)
                say(f"{recipe.folder} is installed already in {place}")
                return done
            return _install_locked(recipe, options, place, say)
    except Timeout as error:
        raise ProvisionError(
            f"Another installation of {recipe.name} has been running for more than "
            f"{options.wait_s:g} s.",
            hint="wait for it, or end it and run this again",
            where=f"{place}.lock",
        ) from error


def _install_locked(
    recipe: Recipe, options: Options, place: Path, say: Say
) -> Mapping[str, object]:
    log = place / "install.log"
    started = time.monotonic()
    say(f"{recipe.folder}: about {recipe.disk_gib:g} GiB; log: {log}")
    _make_environment(place, options, log, say)
    for index, step in enumerate(recipe.steps):
        _once(recipe, index, step, options, place, say)
    line = _probe(recipe, place, log)
    write_wrappers(recipe)
    found = {
        "engine": recipe.name,
        "version": recipe.version,
        "recipe": recipe.identity,
        "probe": line,
        "versions": _versions(place, recipe.report),
        "seconds": round(time.monotonic() - started, 1),
    }
    write_whole(place / MARKER, json.dumps(found, indent=1) + "\n")
    say(f"{recipe.folder}: installed after {found['seconds']} s: {line}")
    return found


def _make_environment(place: Path, options: Options, log: Path, say: Say) -> None:
    if (place / "bin" / "pip").exists():
        return
    say(f"  virtual environment with {options.python}")
    _run((options.python, "-m", "venv", str(place)), log, lambda line: None)


def _once(
    recipe: Recipe, index: int, step: Step, options: Options, place: Path, say: Say
) -> None:
    done = place / f"step-{index}.done"
    place_in_row = f"[{index + 1}/{len(recipe.steps)}] {step.title}"
    if done.exists() and done.read_text() == recipe.digest(index):
        say(f"  {place_in_row}: done before")
        return
    started = time.monotonic()
    say(f"  {place_in_row} ...")
    _carry_out(recipe, step, options, place, say)
    write_whole(done, recipe.digest(index))
    say(f"  {place_in_row}: {time.monotonic() - started:.0f} s")


def _carry_out(
    recipe: Recipe, step: Step, options: Options, place: Path, say: Say
) -> None:
    log = place / "install.log"
    pip = (str(place / "bin" / "python"), "-m", "pip")
    match step:
        case Pip():
            words = (*pip, "install", *pip_words(recipe, step, options))
            _run(words, log, _Ticker(say), hint=_pip_hint(step))
        case PipRemove(packages=packages):
            _run((*pip, "uninstall", "--yes", *packages), log, lambda line: None)
        case PlaceFile(path=path, text=text):
            target = site_packages(place) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        case Replace(path=path, old=old, new=new):
            _replace(site_packages(place) / path, old, new)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    if new not in text and old not in text:
        raise ProvisionError(
            f"{path.name} does not hold the line {old.strip()!r}.",
            hint="the package is another version than the recipe is for",
            where=path,
        )
    write_whole(path, text.replace(old, new))


def pip_words(recipe: Recipe, step: Pip, options: Options) -> tuple[str, ...]:
    """Return the words after ``pip install`` for one step."""
    words = ["--progress-bar", "off", *step.packages]
    if not step.deps:
        words.append("--no-deps")
    lock = LOCKS / recipe.lock
    if options.locked and step.deps and recipe.lock and lock.is_file():
        words += ["--constraint", str(lock)]
    if step.torch_index and options.torch_index:
        words += ["--extra-index-url", options.torch_index]
    return tuple(words)


def _pip_hint(step: Pip) -> str:
    if step.torch_index:
        return (
            "torch for CPU has a local version that the Python package index does not "
            "carry: name an index that has it with --torch-index URL"
        )
    return "read the end of the log, then run the same command again: it resumes"


def site_packages(place: Path) -> Path:
    """Return the ``site-packages`` folder of the environment in `place`."""
    found = sorted((place / "lib").glob("python3.*/site-packages"))
    if not found:
        raise ProvisionError(f"{place} holds no virtual environment.")
    return found[0]


def _probe(recipe: Recipe, place: Path, log: Path) -> str:
    program, *rest = recipe.probe
    lines: list[str] = []
    _run((str(place / "bin" / program), *rest), log, lines.append)
    said = [line for line in lines if line.strip()]
    return said[-1].strip() if "--version" in rest and said else recipe.version


def _versions(place: Path, names: Sequence[str]) -> dict[str, str]:
    words = (str(place / "bin" / "python"), "-m", "pip", "list", "--format", "json")
    out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = {row["name"].lower(): row["version"] for row in json.loads(out)}
    return {name: found.get(name.lower(), "?") for name in names}


def write_wrappers(recipe: Recipe) -> None:
    """Make the engine's programs findable by name, in `paths.bin_dir`.

    A wrapper and not a link: an interpreter that is called through a link
    outside its environment does not find the environment's packages.
    """
    paths.bin_dir().mkdir(parents=True, exist_ok=True)
    for name, program in recipe.programs.items():
        inside = site_packages(home(recipe)) if "/" in program else home(recipe) / "bin"
        target = inside / program
        wrapper = paths.bin_dir() / name
        write_whole(wrapper, f'#!/bin/sh\nexec "{target}" "$@"\n', mode=0o755)


def require(name: str, engine: str) -> str:
    """Return the path of program `name`, which engine `engine` brings.

    Raises:
        EngineMissing: neither PATH nor the cache has it.
    """
    found = paths.find_program(name)
    if found is None:
        raise EngineMissing(
            f"The program {name!r} is not on this machine.",
            hint=f"pytest-pd engines install {engine}",
        )
    return found


class _Ticker:
    """Says pip's newest line every few seconds, so that a person sees it move."""

    def __init__(self, say: Say, every_s: float = 10.0) -> None:
        self._say = say
        self._every_s = every_s
        self._last = time.monotonic()
        self._count = 0

    def __call__(self, line: str) -> None:
        self._count += line.startswith("Collecting ")
        if time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            self._say(f"      {self._count} packages; {line.strip()[:100]}")


def _run(words: Sequence[str], log: Path, heard: Say, *, hint: str = "") -> None:
    """Run one command to its end, its output into `log` and line by line to `heard`."""
    env = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONNOUSERSITE": "1"}
    with log.open("a") as sink:
        sink.write(f"$ {' '.join(words)}\n")
        sink.flush()
        with subprocess.Popen(
            words,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                for line in process.stdout or ():
                    sink.write(line)
                    heard(line)
            except BaseException:
                process.kill()
                raise
    if process.returncode:
        raise ProvisionError(
            f"{' '.join(words[:5])} ... ended with code {process.returncode}.",
            hint=hint or "read the end of the log, then run the same command again",
            where=log,
        )
