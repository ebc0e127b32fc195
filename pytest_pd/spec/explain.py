"""A pydantic refusal as a person reads it: place, fact, nearest known key."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Protocol, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pytest_pd.errors import SpecError
from pytest_pd.spec.base import Model

Place = tuple[Hashable, ...]


class Placed(Protocol):
    """Something that knows on which line a key stands."""

    def where(self, place: Place) -> str: ...

    def has(self, place: Place) -> bool: ...


def explain(error: ValidationError, model: type[Model], source: Placed) -> SpecError:
    """Return one error for all refusals of a file, the first one foremost."""
    wrong = _mistakes(error, source)
    told = list(dict.fromkeys(_tell(e, model, source) for e in wrong))
    return SpecError(
        "\n".join(fact for fact, _ in told),
        hint="; ".join(dict.fromkeys(hint for _, hint in told if hint)),
        where=source.where(_in_file(wrong[0]["loc"], source)),
    )


def _mistakes(error: ValidationError, source: Placed) -> list[ErrorDetails]:
    # a default that waits for a wrong value is no mistake of its own
    found = [e for e in error.errors() if e["type"] != "default_factory_not_called"]
    # of "a name, or a mapping" only that branch counts which the file tried
    tried = [
        e
        for e in found
        if e["type"] == "missing" or source.has(_in_file(e["loc"], source, last=True))
    ]
    return tried or found


def _in_file(loc: Sequence[int | str], source: Placed, *, last: bool = False) -> Place:
    """Return a place without the names of a union's branches, which no file has."""
    place: Place = ()
    for index, step in enumerate(loc):
        if source.has((*place, step)) or (last and index == len(loc) - 1):
            place = (*place, step)
    return place


def _tell(detail: ErrorDetails, model: type[Model], source: Placed) -> tuple[str, str]:
    place = _in_file(detail["loc"], source)
    if detail["type"] == "missing":
        place = (*place, detail["loc"][-1])
    at = source.where(place)
    dotted = ".".join(map(str, place)) or "the file"
    if detail["type"] == "extra_forbidden":
        return f"{at}: unknown key {dotted!r}.", _nearest(model, place)
    if detail["type"] == "missing":
        return f"{at}: key {dotted!r} is missing.", ""
    message = detail["msg"].removeprefix("Value error, ")
    value = detail["input"]
    got = f" (got {value!r})" if isinstance(value, str | int | float | bool) else ""
    return f"{at}: {dotted}: {message}{got}.", ""


def _nearest(model: type[Model], place: Place) -> str:
    known = sorted(known_keys(model, place[:-1]))
    near = get_close_matches(str(place[-1]), known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known keys: {', '.join(known)}" if known else ""


def known_keys(model: type[Model], place: Place) -> set[str]:
    """Return the keys that the models at `place` know."""
    level: set[type[Model]] = {model}
    for step in place:
        inner = {
            found
            for owner in level
            if step in owner.model_fields
            for found in _models_in(owner.model_fields[str(step)].annotation)
        }
        # a list index or a union's tag names no field: stay on this level
        level = inner or level
    return {name for owner in level for name in owner.model_fields}


def _models_in(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
