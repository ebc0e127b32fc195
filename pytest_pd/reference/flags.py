"""The flags of ``vllm serve``, taken from its own parser: ``data/vllm_flags.json``.

All of them are checked for syntax as vLLM does it; what the reference engine does not
need is then ignored. Unknown ones end the program with argparse's message and code 2.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parent / "data" / "vllm_flags.json"
_SIZES = {
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
    "T": 2**40,
}


def make_parser(prog: str = "vllm serve") -> argparse.ArgumentParser:
    """Return a parser with every flag of ``vllm serve`` and our own few."""
    parser = argparse.ArgumentParser(prog=prog, add_help=False)
    parser.add_argument("model_tag", nargs="?", help="folder of the model")
    parser.add_argument("--help", "-h", action="help")
    own = parser.add_argument_group("reference engine")
    own.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="JSON",
        help="a fault to commit; repeatable; also PD_REFERENCE_FAULTS",
    )
    own.add_argument(
        "--allow-faults",
        action="store_true",
        help="let POST /pd/faults replace the faults at run time",
    )
    own.add_argument(
        "--rehearse-model",
        metavar="DIR",
        help="compute with this model whatever model is named; also "
        "PD_REFERENCE_REHEARSE_MODEL",
    )
    vllm = parser.add_argument_group("vllm serve")
    for entry in json.loads(_DATA.read_text("utf-8"))["flags"]:
        vllm.add_argument(*entry["names"], **_keywords(entry))
    return parser


def parse(argv: Sequence[str], prog: str = "vllm serve") -> argparse.Namespace:
    """Parse the words after ``serve``; flags not given are None.

    Raises:
        SystemExit: with code 2 after argparse's message.
    """
    parser = make_parser(prog)
    words = _gathered([_dashed(word) for word in argv])
    return parser.parse_args(words)


def _keywords(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of ``add_argument`` for one entry of the data file."""
    kind = entry["kind"]
    if kind == "bool":
        return {"action": argparse.BooleanOptionalAction, "default": None}
    if kind == "switch":
        return {"action": "store_true"}
    keywords: dict[str, Any] = {"type": _TYPES[kind], "default": None}
    if entry.get("many"):
        keywords["action"] = "append"
    for name in ("nargs", "choices"):
        if name in entry:
            keywords[name] = entry[name]
    if keywords.get("nargs") == "?":
        keywords["const"] = True
    if kind == "int" and "choices" in keywords:
        keywords["choices"] = [int(choice) for choice in keywords["choices"]]
    return keywords


def size(text: str) -> int:
    """Return 1000 for ``1k``, 1024 for ``1K``, 25600 for ``25.6k``.

    Raises:
        argparse.ArgumentTypeError: the text is no such number.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT])?", text)
    if found is None or ((found[2] or "k").isupper() and "." in found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 2k or 2K")
    return int(float(found[1]) * _SIZES.get(found[2], 1))


def _size_or_auto(text: str) -> int:
    return -1 if text in ("auto", "-1") else size(text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(
            f"Value {text} cannot be converted: {exc}"
        ) from exc


def _json_or_text(text: str) -> Any:
    return _json(text) if text.startswith("{") else text


_TYPES: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "size": size,
    "size_or_auto": _size_or_auto,
    "json": _json,
    "json_or_str": _json_or_text,
}


def _dashed(word: str) -> str:
    """Write ``--max_model_len`` with dashes and ``-O3`` in full, as vLLM does."""
    if word.startswith("-O") and word != "-O":
        return f"--optimization-level={word[2:].removeprefix('=')}"
    if not word.startswith("--"):
        return word
    name, dot_or_equal, rest = re.match(r"([^.=]*)([.=]?)(.*)", word, re.S).groups()  # type: ignore[union-attr]
    return name.replace("_", "-") + dot_or_equal + rest


def _gathered(words: Sequence[str]) -> list[str]:
    """Put ``--flag.key.other value`` together as ``--flag '{"key": ...}'``."""
    kept: list[str] = []
    nested: dict[str, dict[str, Any]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not re.match(r"--[\w-]+\.", word):
            kept.append(word)
            continue
        name, equal, value = word.partition("=")
        if not equal:
            value = rest.pop(0) if rest else "null"
        flag, *keys = name.split(".")
        _put(nested.setdefault(flag, {}), keys, value)
    for flag, content in nested.items():
        kept += [flag, json.dumps(content)]
    return kept


def _put(content: dict[str, Any], keys: Sequence[str], text: str) -> None:
    for key in keys[:-1]:
        content = content.setdefault(key, {})
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    last = keys[-1]
    if last.endswith("+"):
        content.setdefault(last[:-1], []).append(value)
    else:
        content[last] = value
