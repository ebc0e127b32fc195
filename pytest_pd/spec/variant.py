"""One file, many topologies: a base, named variants, and a matrix of values.

Merge rule: mappings merge, lists replace, null deletes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.spec.document import Document, Place

OWN_KEYS = ("variants", "matrix", "abstract")
"""Top-level keys that say how a file unfolds; no topology has them."""


def unfold(document: Document, base_name: str = "") -> dict[str, Document]:
    """Return every topology of a file by name: the base first, then the others.

    The base is left out when the file says ``abstract: true``.

    Args:
        base_name: Called so, whatever the file says its name is.

    Raises:
        SpecError: variants or matrix are not what they must be, or two
            topologies of the file get the same name.
    """
    data = document.data
    if not isinstance(data, dict):
        raise SpecError(f"{document.path} holds no mapping of keys to values.")
    base = Document(
        document.path,
        {key: value for key, value in data.items() if key not in OWN_KEYS},
        document.lines,
    )
    name = base_name or str(data.get("name", document.path.stem))
    found = {} if data.get("abstract") is True else {name: base}
    for suffix, overlay, place in (*_variants(document), *_points(document)):
        full = f"{name}_{suffix}"
        if full in found:
            raise SpecError(
                f"{document.where(place)}: topology {full!r} is given twice."
            )
        found[full] = merged(base, {**overlay, "name": full}, place)
        if place == ("matrix",):
            found[full] = _with_axes_lines(found[full])
    if not found:
        raise SpecError(f"{document.path} is abstract and has no variants.")
    return found


def merged(base: Document, overlay: Mapping[str, Any], place: Place) -> Document:
    """Return `base` with `overlay` laid over it.

    Args:
        place: Where the overlay stands in the file, for messages.
    """
    lines = dict(base.lines)
    data = _merge(base.data, overlay, (), place, lines)
    return Document(base.path, data, lines)


def _merge(
    below: Any, above: Any, at: Place, source: Place, lines: dict[Place, int]
) -> Any:
    if source in lines:
        lines[at] = lines[source]
    if not isinstance(above, Mapping):
        for place in [p for p in lines if p[: len(source)] == source]:
            lines[(*at, *place[len(source) :])] = lines[place]
        return above
    found = dict(below) if isinstance(below, dict) else {}
    for key, value in above.items():
        if value is None:
            found.pop(key, None)
            continue
        inner = (*at, key), (*source, key)
        found[key] = _merge(found.get(key), value, *inner, lines)
    return found


_Overlay = tuple[str, dict[str, Any], Place]


def _variants(document: Document) -> Iterator[_Overlay]:
    variants = document.data.get("variants") or {}
    _want(document, variants, dict, ("variants",), "a mapping of names to changes")
    for name, overlay in variants.items():
        place = ("variants", name)
        _want(document, overlay, dict, place, "a mapping of keys to change")
        yield str(name), overlay, place


def _points(document: Document) -> Iterator[_Overlay]:
    """Every point of the matrix: ``zip`` in step, ``grid`` in all combinations."""
    matrix = document.data.get("matrix") or {}
    place: Place = ("matrix",)
    _want(document, matrix, dict, place, "a mapping with zip, grid, name")
    if unknown := sorted(set(matrix) - {"zip", "grid", "name"}):
        raise SpecError(
            f"{document.where((*place, unknown[0]))}: unknown key "
            f"'matrix.{unknown[0]}'.",
            hint="known keys: grid, name, zip",
        )
    zipped, grid = (_axes(document, matrix.get(k) or {}, k) for k in ("zip", "grid"))
    _same_length(document, zipped)
    rows = list(zip(*zipped.values(), strict=True)) or [()]
    for row, cell in product(rows, list(product(*grid.values()))):
        point = dict(zip((*zipped, *grid), (*row, *cell), strict=True))
        if point:
            yield _point_name(matrix.get("name"), point), _nested(point), place


def _with_axes_lines(document: Document) -> Document:
    """Let values of a point stand on the lines of their axes."""
    lines = dict(document.lines)
    axes = [p for p in document.lines if p[:1] == ("matrix",) and len(p) == 3]
    for axis in axes:
        place: Place = tuple(str(axis[2]).split("."))
        deeper = [p for p in lines if p[: len(place)] == place]
        for inner in deeper:
            del lines[inner]
        lines[place] = document.lines[axis]
    return Document(document.path, document.data, lines)


def _axes(document: Document, axes: Any, kind: str) -> dict[str, list[Any]]:
    place: Place = ("matrix", kind)
    _want(document, axes, dict, place, "a mapping of dotted keys to lists")
    for key, values in axes.items():
        _want(document, values, list, (*place, key), "a list of values")
    return dict(axes)


def _same_length(document: Document, zipped: Mapping[str, list[Any]]) -> None:
    lengths = {key: len(values) for key, values in zipped.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} has {count}" for key, count in lengths.items())
        raise SpecError(
            f"{document.where(('matrix', 'zip'))}: lists of a zip go in step: {told}."
        )


def _point_name(template: Any, point: Mapping[str, Any]) -> str:
    if template:
        return re.sub(r"\{([\w.]+)\}", lambda m: _tag(point, m.group(1)), str(template))
    return "-".join(f"{key.replace('.', '_')}_{_tag(point, key)}" for key in point)


def _tag(point: Mapping[str, Any], key: str) -> str:
    if key not in point:
        raise SpecError.unknown("matrix.name: axis", key, point)
    value = point[key]
    text = "x".join(map(str, value)) if isinstance(value, list) else str(value)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text)


def _nested(point: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for dotted, value in point.items():
        *parents, last = dotted.split(".")
        level = found
        for parent in parents:
            level = level.setdefault(parent, {})
        level[last] = value
    return found


def _want(
    document: Document,
    value: object,
    kind: type,
    place: Place,
    what: str,
) -> None:
    if not isinstance(value, kind):
        dotted = ".".join(map(str, place))
        raise SpecError(f"{document.where(place)}: {dotted} must be {what}.")
