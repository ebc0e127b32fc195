"""Files that are whole and on disk, or as they were; and JSON that may be missing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def whole_file(path: Path, *, mode: int | None = None) -> Iterator[IO[bytes]]:
    """Yield a file to write, which takes the place of `path` when the block ends.

    Args:
        mode: Permissions; else those that `path` has, or a new file gets.

    Raises:
        OSError: it cannot be written; `path` is as it was, and nothing lies beside it.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        if mode is not None:
            partial.chmod(mode)
        elif path.exists():
            shutil.copymode(path, partial)
        partial.replace(path)
    except BaseException:  # Ctrl-C as well
        with suppress(OSError):
            partial.unlink()
        raise


def write_whole(path: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Write a file, text as UTF-8, so that a reader sees all of it or what it was.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(path, mode=mode) as sink:
        sink.write(content.encode() if isinstance(content, str) else content)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; empty where there is none."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}
