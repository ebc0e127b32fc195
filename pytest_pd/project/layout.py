"""Which files a project gets, and what becomes of each. Pure but for `sources`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from enum import StrEnum
from pathlib import Path

FILES = Path(__file__).resolve().parent / "files"
SUITES = FILES.parents[1] / "suites"
ALWAYS = {
    "pytest.ini": "pytest.ini.txt",
    "conftest.py": "conftest.py.txt",
    "README.md": "README.md.txt",
    ".gitignore": "gitignore.txt",
    "suites/mine/test_mine.py": "test_mine.py.txt",
    "fixtures/topologies/mine.yaml": "mine.yaml.txt",
    "fixtures/clusters/my_slurm.yaml": "my_slurm.yaml.txt",
    "nightly.gate.yaml": "nightly.gate.yaml.txt",
    "quarantine.yaml": "quarantine.yaml.txt",
}
"""Path in the project to the file it comes from."""
CI = {
    "github": {".github/workflows/nightly.yml": "github-nightly.yml.txt"},
    "gitlab": {".gitlab-ci.yml": "gitlab-ci.yml.txt"},
    "cron": {"nightly.sh": "nightly.sh.txt"},
}
"""Kind of CI to its files."""
PROGRAMS = frozenset({"nightly.sh"})
"""Files that are started."""


class Act(StrEnum):
    """What is done with one file."""

    CREATE = "new"
    UPDATE = "updated"
    KEEP = "yours, kept"
    SAME = "unchanged"
    GONE = "removed by you, stays away"


@dataclass(frozen=True, slots=True)
class Change:
    """One file: what is done, and what differs between the project's and ours."""

    path: str
    act: Act
    text: str
    diff: str = ""


def sources(ci: Iterable[str]) -> dict[str, str]:
    """Return path in the project to text, suites of the package included."""
    wanted = dict(ALWAYS)
    for kind in ci:
        wanted |= CI[kind]
    found = {
        path: (FILES / name).read_text(encoding="utf-8")
        for path, name in wanted.items()
    }
    for file in sorted(SUITES.rglob("*.py")):
        if file.name != "__init__.py":
            place = f"suites/{file.relative_to(SUITES).as_posix()}"
            found[place] = file.read_text(encoding="utf-8")
    return found


def digest(text: str) -> str:
    """Return what identifies a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def decide(
    ours: Mapping[str, str], theirs: Mapping[str, str], laid_out: Mapping[str, str]
) -> list[Change]:
    """Decide about each file.

    Args:
        ours: Path to the text that this version lays out.
        theirs: Path to the text in the project, where there is one.
        laid_out: Path to the digest of what was laid out before.

    A file that was changed since, or that we never laid out, is never written.
    """
    return [
        _decide(path, text, theirs.get(path), laid_out.get(path))
        for path, text in ours.items()
    ]


def _decide(path: str, text: str, found: str | None, before: str | None) -> Change:
    if found is None:
        return Change(path, Act.GONE if before else Act.CREATE, text)
    if found == text:
        return Change(path, Act.SAME, text)
    diff = "".join(
        unified_diff(
            found.splitlines(keepends=True),
            text.splitlines(keepends=True),
            f"{path} (yours)",
            f"{path} (pytest-pd)",
        )
    )
    is_ours = before == digest(found)
    if not is_ours and before == digest(text):
        return Change(path, Act.KEEP, text)  # nothing new: no diff to look at
    return Change(path, Act.UPDATE if is_ours else Act.KEEP, text, diff)
