"""Lay out a project of your own: suites, topologies, conftest, CI recipes.

examples:
  pytest-pd init pd                 then: cd pd && pytest
  pytest-pd init . --ci gitlab      only this recipe (github, gitlab, cron, none)
  pytest-pd init --update .         after an upgrade: diff of what is new
  pytest-pd init --update . --dry-run

Nothing that exists is overwritten. --update writes files that you did not change since
they were laid out, and shows for the others what differs; a file that you removed
stays away.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytest_pd import __version__
from pytest_pd.errors import SpecError
from pytest_pd.project.layout import (
    CI,
    PROGRAMS,
    Act,
    Change,
    decide,
    digest,
    sources,
)

STATE = ".pytest-pd.json"
WRITTEN = (Act.CREATE, Act.UPDATE)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd init``."""
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument(
        "--ci",
        action="append",
        choices=(*CI, "none"),
        help="recipes for nights; repeatable (default: all)",
    )
    parser.add_argument(
        "--update", action="store_true", help="bring what is new in this version"
    )
    parser.add_argument("--dry-run", action="store_true", help="write nothing")


def run(args: argparse.Namespace) -> int:
    """Lay out or update, and say of each file what became of it."""
    state = read_state(args.folder)
    if bool(state) != args.update:
        raise SpecError(
            f"{str(args.folder)!r} is {'a' if state else 'no'} project of pytest-pd.",
            hint="pytest-pd init " + ("--update DIR" if state else "DIR, first"),
        )
    kinds = [kind for kind in args.ci or state.get("ci", CI) if kind != "none"]
    ours = sources(kinds)
    laid_out: Mapping[str, str] = state.get("files", {})
    changes = decide(ours, texts(args.folder, ours), laid_out)
    for change in changes:
        say(change, args.update)
    if args.dry_run:
        return 0
    write(args.folder, changes)
    write_state(args.folder, kinds, changes, laid_out)
    if not args.update:
        print(f"try: cd {args.folder} && pytest suites/mine")
    return 0


def say(change: Change, updates: bool) -> None:
    """Print a line for what changes, and the diff of what differs."""
    if updates and change.act is Act.SAME:
        return
    print(f"{change.act}: {change.path}")
    if updates and change.diff:
        print(change.diff, end="")


def read_state(folder: Path) -> Mapping[str, Any]:
    """Return what was laid out before; empty when nothing was.

    Raises:
        SpecError: the file is there and cannot be read, or holds something else.
    """
    path = folder / STATE
    if not path.exists():
        return {}
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and _is_state(found):
            return found
    raise SpecError(
        f"{str(path)!r} is damaged.",
        hint="restore it from version control, or remove it and run init again: "
        "files that exist are kept",
    )


def _is_state(found: Mapping[str, Any]) -> bool:
    files, kinds = found.get("files"), found.get("ci", [])
    return (
        isinstance(files, dict)
        and isinstance(kinds, list)
        and all(isinstance(word, str) for word in (*files.values(), *kinds))
    )


def texts(folder: Path, paths: Mapping[str, str]) -> dict[str, str]:
    """Return the texts of those paths that exist.

    Raises:
        SpecError: one exists and cannot be read as text.
    """
    found = {}
    for path in paths:
        place = folder / path
        if place.exists() or place.is_symlink():
            try:
                found[path] = place.read_text(encoding="utf-8")
            except (OSError, ValueError) as error:
                raise SpecError(f"{str(place)!r} cannot be read: {error}.") from error
    return found


def write(folder: Path, changes: Sequence[Change]) -> None:
    """Write what is new.

    Raises:
        SpecError: the folder cannot be written.
    """
    try:
        for change in changes:
            if change.act in WRITTEN:
                place = folder / change.path
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(change.text, encoding="utf-8")
                if change.path in PROGRAMS:
                    place.chmod(0o755)
    except OSError as error:
        raise SpecError(
            f"{error.filename} cannot be written: {error.strerror}."
        ) from error


def write_state(
    folder: Path,
    kinds: Sequence[str],
    changes: Sequence[Change],
    before: Mapping[str, str],
) -> None:
    """Write down what was laid out, for the next update."""
    files = dict(before)
    for change in changes:
        # of a file that is kept, the text it was offered: it is not shown twice
        files[change.path] = digest(change.text)
    content = {"version": __version__, "ci": list(kinds), "files": files}
    (folder / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")
