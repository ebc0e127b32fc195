"""The closed list of names that a specification may leave open."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from pytest_pd.errors import SpecError

T = TypeVar("T")
KNOWN = (
    *("run_dir", "run_id", "node", "node_ip", "port:<purpose>"),
    *("name", "replica", "index"),
)
_NAME = re.compile(r"\{(\{?)([a-z][a-z_]*(?::[a-z_]+)?)\}(\}?)")


def has_placeholder(value: Any) -> bool:
    """Return whether anything is left to be filled in."""
    seen: list[str] = []

    def note(name: str, escaped: bool) -> str:
        seen.append(name)
        return name

    _walk(value, note)
    return bool(seen)


def expand(
    value: T, values: Mapping[str, object], where: str, *, partial: bool = False
) -> T:
    """Fill in every ``{name}`` of a text, list, mapping or model.

    ``{{name}}`` stays as the text ``{name}``. JSON is left alone: its braces
    hold no bare word. With `partial`, names without a value are left for later.

    Raises:
        SpecError: a name that is not on the list.
    """

    def fill(name: str, escaped: bool) -> str:
        if escaped:
            return "{{" + name + "}}" if partial else "{" + name + "}"
        if name in values:
            return str(values[name])
        if partial:
            return "{" + name + "}"
        raise SpecError(
            f"{where}: {{{name}}} is no known placeholder.",
            hint=f"one of: {', '.join('{' + known + '}' for known in KNOWN)}; "
            f"write {{{{{name}}}}} for the text itself",
        )

    return _walk(value, fill)  # type: ignore[no-any-return]


def _walk(value: Any, fill: Callable[[str, bool], str]) -> Any:
    if isinstance(value, str):
        return _text(value, fill) if "{" in value else value
    if isinstance(value, tuple | list):
        return type(value)(_walk(item, fill) for item in value)
    if isinstance(value, dict):
        return {key: _walk(item, fill) for key, item in value.items()}
    if isinstance(value, BaseModel):
        changed = {
            name: new
            for name in type(value).model_fields
            if (new := _walk(old := getattr(value, name), fill)) != old
        }
        return value.model_copy(update=changed) if changed else value
    return value


def _text(text: str, fill: Callable[[str, bool], str]) -> str:
    def one(match: re.Match[str]) -> str:
        before, name, after = match.groups()
        if before and after:
            return fill(name, True)
        return before + fill(name, False) + after

    return _NAME.sub(one, text)


_UNFILLED = re.compile(r"<(?=[^>]*[A-Z_ -])[A-Za-z][\w -]*>")


def refuse_unfilled(values: Any, where: str) -> None:
    """Refuse ``<your-model-path>``, which recipes leave for the reader to fill.

    Raises:
        SpecError: a whole word is such a gap.
    """

    def look(text: str) -> None:
        if gap := _UNFILLED.fullmatch(text.partition("=")[2] or text):
            raise SpecError(
                f"{where}: {gap.group()} was never filled in.",
                hint="write the value, or one of the placeholders in braces",
            )

    _each_text(values, look)


def _each_text(value: Any, look: Callable[[str], None]) -> None:
    if isinstance(value, str):
        look(value)
    elif isinstance(value, tuple | list):
        for item in value:
            _each_text(item, look)
    elif isinstance(value, dict):
        for item in value.values():
            _each_text(item, look)
