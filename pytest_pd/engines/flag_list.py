"""Does a release of an engine know this command line? Looked up in its own list.

The list is what the release's argument parser holds; the reference engine reads the
same file when it plays that release.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

from pytest_pd.errors import SpecError

LISTS = {"vllm": ("0.32.0", "vllm_flags.json")}
"""Engine to the release that is listed, and the file with its options."""

SKIPPED_WORDS = {"vllm": 2}
"""Words before the options: ``vllm serve``."""

NO_VALUE = ("switch", "bool")


@cache
def known_flags(engine: str) -> Mapping[str, bool]:
    """Return option to whether a value must follow; empty without a list."""
    if engine not in LISTS:
        return {}
    file = files("pytest_pd.reference") / "data" / LISTS[engine][1]
    found: dict[str, bool] = {}
    for entry in json.loads(file.read_text("utf-8"))["flags"]:
        found.update(dict.fromkeys(_names(entry), _needs_value(entry)))
    return found


def _names(entry: Mapping[str, Any]) -> list[str]:
    names = list(entry["names"])
    if entry["kind"] == "bool":
        names += [f"--no-{name[2:]}" for name in names if name.startswith("--")]
    return names


def _needs_value(entry: Mapping[str, Any]) -> bool:
    return entry["kind"] not in NO_VALUE and entry.get("nargs") not in ("?", "*")


def check_flags(engine: str, version: str | None, argv: Sequence[str]) -> None:
    """Refuse an option that the release does not have, and one without its value.

    Other releases than the listed one are not judged.

    Raises:
        SpecError: names the option and the nearest one.
    """
    listed = LISTS.get(engine, ("", ""))[0]
    if not listed or version not in (None, listed):
        return
    known = known_flags(engine)
    words = list(argv[SKIPPED_WORDS[engine] :])
    for flag, has_value in _options(words):
        name = _normal(flag)
        if name not in known and name.partition(".")[0] not in known:
            raise SpecError.unknown(f"{engine} {listed}: option", flag, known)
        if known.get(name) and not has_value:
            raise SpecError(
                f"{engine} {listed}: option {flag!r} needs a value.",
                hint="write it as the next word, or as --option=value",
            )


def _normal(flag: str) -> str:
    """Write underscores as hyphens, as vLLM does before it reads a command line."""
    return flag.replace("_", "-") if flag.startswith("--") else flag


def _options(words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield every option, and whether a value follows it."""
    for word, following in pairwise([*words, "--"]):
        if word.startswith("--"):
            flag, sign, _ = word.partition("=")
            negative = following.startswith("-") and following[1:2].isdigit()
            yield flag, bool(sign) or negative or not following.startswith("-")
