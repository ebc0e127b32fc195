"""What options with numbers and files may be: told before anything runs."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.files import write_whole
from pytest_pd.spec.base import MOST_SECONDS
from pytest_pd.spec.workload import (
    MOST_REQUESTS,
    MOST_SHARDS,
    MOST_STREAMS,
    MOST_TOKENS,
)

MOST_SCATTER = 10


def count(text: str) -> int:
    """Return a whole number of 0 or more.

    Raises:
        ArgumentTypeError: it is none.
    """
    return _whole(text, 0)


def positive(text: str) -> int:
    """Return a whole number of 1 or more.

    Raises:
        ArgumentTypeError: it is none.
    """
    return _whole(text, 1)


def up_to(most: int) -> Callable[[str], int]:
    """Return what takes a whole number from 1 to `most`, as a workload file does.

    It raises `ArgumentTypeError` for any other text.
    """
    return lambda text: _whole(text, 1, most)


tokens = up_to(MOST_TOKENS)
requests = up_to(MOST_REQUESTS)
streams = up_to(MOST_STREAMS)
shards = up_to(MOST_SHARDS)


def _whole(text: str, least: int, most: int | None = None) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no whole number of {least} or more"
        )
    if most is not None and number > most:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {most}")
    return number


def seconds(text: str) -> float:
    """Return a time above 0 that a clock of nanoseconds holds; seconds.

    Raises:
        ArgumentTypeError: it is none.
    """
    words = f"number above 0 and up to {MOST_SECONDS}"
    return _number(text, lambda n: 0 < n <= MOST_SECONDS, words)


def scatter(text: str) -> float:
    """Return a scatter from run to run, a share; more than tenfold tells of nothing.

    Raises:
        ArgumentTypeError: it is none.
    """
    return _number(text, lambda n: 0 <= n <= MOST_SCATTER, "number from 0 on, up to 10")


def above_zero(text: str) -> float:
    """Return a finite number above 0.

    Raises:
        ArgumentTypeError: it is none.
    """
    return _number(text, lambda n: 0 < n < math.inf, "number above 0")


def zero_or_more(text: str) -> float:
    """Return a finite number that is not negative.

    Raises:
        ArgumentTypeError: it is none.
    """
    return _number(text, lambda n: 0 <= n < math.inf, "number from 0 on")


def share(text: str) -> float:
    """Return a number above 0 and below 1.

    Raises:
        ArgumentTypeError: it is none.
    """
    return _number(text, lambda n: 0 < n < 1, "share above 0 and below 1")


def _number(text: str, fits: Callable[[float], bool], words: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not fits(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no {words}")
    return number


def check_file(path: Path) -> None:
    """Refuse a file that could not be written when the figures are there.

    Raises:
        SpecError: its folder is missing or closed to us (the file is replaced there,
            never changed), or it is a folder itself.
    """
    folder = path.parent
    if path.is_dir():
        raise SpecError(f"{path} is a folder.", hint="name a file")
    if not folder.is_dir():
        raise SpecError(f"Folder {folder} does not exist.", hint=f"mkdir -p {folder}")
    places = [path] if path.exists() else []
    if path.is_file() or not places:
        places.append(path.resolve().parent)
    if not all(os.access(place, os.W_OK) for place in places):
        raise SpecError(f"{path} cannot be written by this user.")


def write_json(path: Path, data: Any, *, done: bool = True) -> None:
    """Write `data`: a file whole and on disk, or left as it was.

    Args:
        done: More is to come if not: then into files and not into pipes.

    Raises:
        MeasurementError: it cannot be written any more.
    """
    is_stream = path.exists() and not path.is_file()
    is_stream |= path.parts[:2] in (("/", "dev"), ("/", "proc"))
    if not done and is_stream:
        return
    text = json.dumps(data, indent=1) + "\n"
    try:
        if is_stream:  # `/dev/stdout` may be a file: what was printed stays in it
            with path.open("a") as stream:
                stream.write(text)
        else:
            write_whole(path.resolve(), text)
    except OSError as error:
        raise MeasurementError(
            f"{path} cannot be written: {error.strerror}.",
            hint="make room; the figures are shown all the same",
        ) from error
