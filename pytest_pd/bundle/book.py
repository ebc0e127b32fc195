"""``bundle.json``: which files belong to a bundle, with digests, and what to load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_pd.bundle.need import Need
from pytest_pd.errors import SpecError

BOOK = "bundle.json"
IMAGES = "images.txt"
WHEELS = "wheels"
MODELS = "models"
TRACES = "data"


def model_folder(root: Path, model: str) -> Path:
    """Return where a model's small files lie."""
    return root / MODELS / model.replace("/", "--")


def trace_file(root: Path, trace: Path) -> Path:
    """Return where a recorded data set lies."""
    return root / TRACES / trace.name


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_book(root: Path, topologies: list[str], need: Need) -> None:
    """Write down every file of the bundle."""
    files = {
        str(path.relative_to(root)): digest(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != BOOK
    }
    content = {
        "schema": "pytest-pd-bundle/1",
        "topologies": topologies,
        "need": {k: list(map(str, v)) for k, v in asdict(need).items()},
        "files": files,
    }
    (root / BOOK).write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_book(root: Path) -> dict[str, Any]:
    """Return what `write_book` wrote.

    Raises:
        SpecError: there is no bundle, or its book is damaged.
    """
    path = root / BOOK
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found.get("files"), dict):
            return found
    except (OSError, ValueError):
        pass
    raise SpecError(
        f"{str(root)!r} holds no bundle.", hint="pytest-pd fetch TOPOLOGY --to DIR"
    )


def damaged(root: Path, book: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the files of a bundle."""
    for name, known in book["files"].items():
        path = root / name
        if not path.is_file():
            yield f"{name} is missing"
        elif digest(path) != known:
            yield f"{name} is not the file that was fetched"
