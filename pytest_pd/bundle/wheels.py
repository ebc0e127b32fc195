"""Wheels of this package and of engines, through pip. Nothing is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

from pytest_pd import __version__
from pytest_pd.bundle.hub import FetchError
from pytest_pd.installer.install import Options, pip_words
from pytest_pd.installer.recipe import Pip, Recipe

SELF = "pytest-pd"


def fetch_self(into: Path, say: Callable[[str], None]) -> None:
    """Bring this package with all that it needs; from its folder where it is edited.

    Raises:
        FetchError: pip cannot; with the end of its words.
    """
    place = source_folder()
    wanted = str(place) if place else f"{SELF}=={__version__}"
    say(f"  {wanted}")
    _pip("wheel", "--wheel-dir", str(into), wanted)


def fetch_engine(
    recipe: Recipe, into: Path, options: Options, say: Callable[[str], None]
) -> None:
    """Bring the wheels of every step of a recipe.

    Raises:
        FetchError: pip cannot; with the end of its words.
    """
    for step in recipe.steps:
        if isinstance(step, Pip):
            say(f"  {step.title}")
            _pip("wheel", "--wheel-dir", str(into), *pip_words(recipe, step, options))


def missing_for(requirement: str, wheels: Path) -> str:
    """Return why pip could not install from the folder alone; empty when it can."""
    words = ["install", "--dry-run", "--ignore-installed", "--no-index"]
    try:
        _pip(*words, "--find-links", str(wheels), requirement)
    except FetchError as error:
        return error.fact
    return ""


def source_folder() -> Path | None:
    """Return the folder that this package is installed from, if it is one."""
    try:
        text = distribution(SELF).read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    url = json.loads(text).get("url", "") if text else ""
    parts = urlparse(url)
    folder = Path(unquote(parts.path))
    return folder if parts.scheme == "file" and folder.is_dir() else None


def _pip(*words: str) -> None:
    argv: Sequence[str] = (sys.executable, "-m", "pip", "--no-input", *words)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
        said = (lines or done.stderr.splitlines() or ["no word"])[0].strip()
        raise FetchError(
            f"pip {words[0]} failed: {said}", hint="pip's own configuration is used"
        )
