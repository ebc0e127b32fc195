"""YAML text to plain data: strict, and every key knows its line.

Scalars follow the YAML 1.2 core schema: ``off`` and ``no`` are words, ``12:30``
is text and not 750, ``1e5`` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pytest_pd.errors import SpecError

Place = tuple[Hashable, ...]


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """A safe loader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


class _Dumper(_SafeDumper):  # type: ignore[misc]
    """A safe dumper that quotes what either version of YAML would misread."""


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+0123456789.",
    ),
    ("merge", r"^(?:<<)$", "<"),
):
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first)
        )


_TAGS = ("map", "seq", "str", "bool", "null", "int", "float", "merge")


@dataclass(frozen=True, slots=True)
class Document:
    """Plain data of one file, and the line on which each key or item stands."""

    path: Path
    data: Any
    lines: Mapping[Place, int]

    def has(self, place: Place) -> bool:
        """Return whether the file says something at `place`."""
        value = self.data
        for step in place:
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and step in range(len(value)):
                value = value[int(str(step))]
            else:
                return False
        return True

    def where(self, place: Place) -> str:
        """Return ``file:line`` of the nearest enclosing key of `place`."""
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.path}:{self.lines.get(place, 1)}"


def read_document(path: Path) -> Document:
    """Read one YAML file into plain data.

    Raises:
        SpecError: no such file, not YAML, or a key given twice in one mapping
            (with both lines).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text.") from error
    return parse_document(text, path)


def parse_document(text: str, path: Path) -> Document:
    """Turn YAML text into plain data; `path` is only for messages."""
    loader = _Loader(text)
    lines: dict[Place, int] = {}
    try:
        node = loader.get_single_node()
        data = None if node is None else _plain(loader, node, (), lines, path)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SpecError(f"{path}{line}: not YAML: {problem}.") from error
    finally:
        loader.dispose()
    return Document(path, data, lines)


def _plain(
    loader: _Loader,
    node: yaml.Node,
    place: Place,
    lines: dict[Place, int],
    path: Path,
) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if node.tag.removeprefix("tag:yaml.org,2002:") not in _TAGS:
        raise SpecError(
            f"{path}:{node.start_mark.line + 1}: not YAML of data: tag {node.tag!r}."
        )
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(loader, item, (*place, index), lines, path)
            for index, item in enumerate(node.value)
        ]
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(node, place, path)
        loader.flatten_mapping(node)
        return _mapping(loader, node, place, lines, path)
    return _value(loader, node, path)


def _value(loader: _Loader, node: yaml.Node, path: Path) -> Any:
    """Return what a scalar stands for; some look like numbers and are none."""
    try:
        return loader.construct_object(node)
    except (ValueError, OverflowError) as error:
        line = node.start_mark.line + 1
        raise SpecError(
            f"{path}:{line}: {node.value!r} cannot be read: {error}.",
            hint="write it in quotes if it is a text",
        ) from error


def _mapping(
    loader: _Loader,
    node: yaml.MappingNode,
    place: Place,
    lines: dict[Place, int],
    path: Path,
) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = _value(loader, key_node, path)
        inner = (*place, key)
        lines[inner] = key_node.start_mark.line + 1
        found[key] = _plain(loader, value_node, inner, lines, path)
    return found


def _refuse_duplicates(node: yaml.MappingNode, place: Place, path: Path) -> None:
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise SpecError(f"{path}:{line}: a key must be a word.")
        key = key_node.value
        if key in seen and key != "<<":
            dotted = ".".join(map(str, (*place, key)))
            raise SpecError(
                f"{path}: key {dotted!r} is given twice, on lines {seen[key]} "
                f"and {line}.",
                hint="keep one of them; a plain YAML reader would keep the last",
                where=f"{path}:{line}",
            )
        seen[key] = line


def dump(data: Any) -> str:
    """Return plain data as YAML text that `parse_document` reads back as it was."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=100))
