"""Which workers served a request, in the router's own words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pytest_pd.plan.seam import RouterWitness

Named = tuple[str, str]
"""Names of (prefill, decode): ``host:port`` or ids of the router's own."""


def names_workers(witness: RouterWitness) -> bool:
    """Tell whether an answer of this router says which workers served it."""
    return bool(witness.id_pattern or witness.headers[0] or witness.answer[0])


def named_in(
    witness: RouterWitness, headers: Mapping[str, str], body: Mapping[str, Any]
) -> Named | None:
    """Return the workers that one answer names, or None when it names none.

    Args:
        headers: Of the response, looked up as they are.
        body: The response's JSON.
    """
    if witness.id_pattern:
        found = re.search(witness.id_pattern, str(body.get("id", "")))
        return (found["prefill"], found["decode"]) if found else None
    if witness.headers[0]:
        pair = [_address(headers.get(name, "")) for name in witness.headers]
    else:
        pair = [_at(body, path) for path in witness.answer]
    return (pair[0], pair[1]) if all(pair) else None


def named_in_log(witness: RouterWitness, text: str) -> dict[str, list[str]]:
    """Return the names by phase, ``worker`` where the log does not tell phases."""
    found: dict[str, list[str]] = {}
    for match in re.finditer(witness.log_pattern, text):
        for phase, name in match.groupdict().items():
            if name is not None:
                found.setdefault(phase, []).append(name)
    return found


NOBODY = "none"
"""What the built-in proxy writes where a phase was left out."""


def _address(url: str) -> str:
    name = url.partition("://")[2] or url
    return "" if name == NOBODY else name


def _at(body: Mapping[str, Any], path: str) -> str:
    value: Any = body
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)
