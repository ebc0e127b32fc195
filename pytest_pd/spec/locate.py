"""Which file is meant by a name, a path, a glob or a comma list?

Looked up in the project (its folder ``fixtures/<kind>``), then in the folders
that the ini file names, then among the files shipped with the package.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pytest_pd.errors import SpecError
from pytest_pd.spec.document import read_document
from pytest_pd.spec.variant import unfold
from pytest_pd.user import expand

_SINGULAR = {
    "topologies": "topology",
    "clusters": "cluster",
    "workloads": "workload",
    "evals": "eval",
}
SHIPPED = Path(__file__).resolve().parent.parent / "fixtures"


@dataclass(frozen=True, slots=True)
class Roots:
    """Where to look, in this order.

    Attributes:
        project: The folder pytest calls rootdir; else the working directory.
        ini: Folders from the ini file; each holds ``topologies/`` and its
            siblings, or the files themselves.
    """

    project: Path = Path()
    ini: tuple[Path, ...] = ()

    def folders(self, kind: str) -> tuple[Path, ...]:
        """Return the existing folders of `kind`, for example ``topologies``."""
        own = (Path.cwd() / "fixtures" / kind, self.project / "fixtures" / kind)
        named = [folder / kind for folder in self.ini] + list(self.ini)
        found: dict[Path, None] = {}
        for folder in (*own, *named, SHIPPED / kind):
            if folder.is_dir():
                found.setdefault(folder.resolve())
        return tuple(found)


_UNFOLDS = re.compile(r"^(variants|matrix|abstract)\s*:", re.MULTILINE)

HERE = Roots()
"""The working directory and the shipped files."""


@dataclass(frozen=True, slots=True)
class Found:
    """One specification that a word on the command line stands for.

    Attributes:
        name: For `read_topology`: the file's stem, or one of its variants.
        explicit: Named by itself; False for members of a glob, which may be
            skipped.
    """

    name: str
    path: Path
    explicit: bool


def split_words(words: Iterable[str]) -> tuple[str, ...]:
    """Return the words of repeated options and comma lists, in order, once each."""
    parts = (part.strip() for word in words for part in word.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def catalogue(kind: str, roots: Roots = HERE) -> dict[str, Path]:
    """Return every name of `kind` with its file; the first folder wins.

    A topology file may hold several names: its variants and matrix points.
    """
    found: dict[str, Path] = {}
    for folder in roots.folders(kind):
        for path in sorted(folder.glob("*.yaml")):
            # a folder, or a lock of an editor: a dangling link `.#mine.yaml`
            if path.name.startswith(".") or not os.path.isfile(path):  # noqa: PTH113
                continue
            for name in names_in(path) if kind == "topologies" else (path.stem,):
                found.setdefault(name, path)
    return found


def names_in(path: Path) -> tuple[str, ...]:
    """Return what the topologies of a file are called on the command line."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        # files without variants are by far the most: they need not be parsed
        if not _UNFOLDS.search(text):
            return (path.stem,)
        return tuple(unfold(read_document(path), base_name=path.stem))
    except (SpecError, OSError):  # told when asked for; others are not in its way
        return (path.stem,)


def find(kind: str, words: Iterable[str], roots: Roots = HERE) -> tuple[Found, ...]:
    """Return the files that the words stand for, in order, each once.

    Args:
        kind: ``topologies``, ``clusters``, ``workloads``, ...
        words: Names, paths, globs, or comma lists of them.

    Raises:
        SpecError: a word stands for nothing, and names the nearest; or there is no
            word at all.
    """
    known = catalogue(kind, roots)
    named = split_words(words)
    if not named:  # as `"$UNSET"` in a script: nothing done would look like all done
        raise SpecError(
            f"No {_SINGULAR.get(kind, kind)} is named.",
            hint=f"one of: {', '.join(sorted(known))}",
        )
    found: dict[tuple[str, Path], Found] = {}
    for word in named:
        for item in _of_word(kind, word, known, roots):
            key = (item.name, item.path.resolve())
            if key not in found or item.explicit:
                found[key] = item
    return tuple(found.values())


def find_one(kind: str, words: Sequence[str], roots: Roots = HERE) -> Found:
    """Return the one file, or the one topology, that the words stand for.

    Raises:
        SpecError: they stand for none or for several.
    """
    found = find(kind, words, roots)
    if len(found) != 1:
        raise SpecError(
            f"{', '.join(words)!r} means {len(found)} {kind}; one is wanted.",
            hint=f"one of: {', '.join(each.name for each in found)}",
        )
    return found[0]


def _of_word(
    kind: str, word: str, known: dict[str, Path], roots: Roots
) -> Sequence[Found]:
    if word in known:
        return [Found(word, known[word], explicit=True)]
    if "/" in word or word.endswith((".yaml", ".yml")):
        path = _existing(word, roots)
        names = _named_by_path(path) if kind == "topologies" else (path.stem,)
        return [Found(name, path, explicit=True) for name in names]
    if any(letter in word for letter in "*?["):
        return _of_glob(kind, word, known)
    raise SpecError.unknown(_SINGULAR.get(kind, kind), word, known)


def _named_by_path(path: Path) -> tuple[str, ...]:
    """A file by its path means its base, or all it has when it has no base."""
    names = names_in(path)
    return (path.stem,) if path.stem in names else names


def _existing(word: str, roots: Roots) -> Path:
    path = find_path(word, roots)
    if path is None or not path.is_file():
        raise SpecError(f"{word} is no file.", hint="give a name or an existing path")
    return path


def _of_glob(kind: str, word: str, known: dict[str, Path]) -> Sequence[Found]:
    names = [name for name in sorted(known) if fnmatchcase(name, word)]
    if not names:
        raise SpecError(
            f"{word!r} matches none of the {kind}.",
            hint=f"one of: {', '.join(sorted(known))}",
        )
    return [Found(name, known[name], explicit=False) for name in names]


def find_path(text: str, roots: Roots = HERE) -> Path | None:
    """Return the file or folder that a path in a specification means, or None.

    ``fixtures/...`` is looked up in the working directory, the project, and the
    installed package, in this order.

    Raises:
        SpecError: it begins with ``~user``, and there is no such user.
    """
    path = expand(text)
    tries = [path] if path.is_absolute() else [Path.cwd() / path, roots.project / path]
    if path.parts[:1] == ("fixtures",):
        tries.append(SHIPPED.joinpath(*path.parts[1:]))
    # unlike Path.exists: a path that cannot be looked at is none
    return next((each.resolve() for each in tries if os.path.exists(each)), None)  # noqa: PTH110
