"""Where installed engines lie, and which program a name means on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pytest_pd.user import expand


def cache_dir() -> Path:
    """Return the user's cache folder of pytest-pd, made by nobody yet.

    ``PD_CACHE`` wins, then ``XDG_CACHE_HOME/pytest-pd``, then
    ``~/.cache/pytest-pd``.

    Raises:
        SpecError: it begins with a home folder that this host does not know.
    """
    if chosen := os.environ.get("PD_CACHE"):
        return expand(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else expand("~/.cache")) / "pytest-pd"


def engines_dir() -> Path:
    """Return the folder that holds one virtual environment per engine."""
    return cache_dir() / "engines"


def bin_dir() -> Path:
    """Return the folder of wrappers that makes installed engines findable."""
    return cache_dir() / "bin"


def search_path() -> str:
    """Return PATH with our wrappers last: what the user has already wins."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), str(bin_dir())])


def find_program(name: str) -> str | None:
    """Return the executable called `name`, from PATH or from our cache."""
    return shutil.which(name, path=search_path())
