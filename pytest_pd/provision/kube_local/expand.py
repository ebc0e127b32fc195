"""Variables and words of a container, as the kubelet makes them. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` of what is known; ``$$`` is one dollar.

    Source: Kubernetes ``third_party/forked/golang/expansion``.
    """

    def found(match: re.Match[str]) -> str:
        if match.group() == "$$":
            return "$"
        return env.get(match.group(1), match.group())

    return REFERENCE.sub(found, text)


def environment(
    entries: Sequence[Mapping[str, Any]],
    fields: Mapping[str, str],
    secrets: Mapping[str, Mapping[str, str]],
) -> dict[str, str]:
    """Return a container's variables, each expanded with those before it.

    Args:
        fields: Field path to value, for references to the pod itself.
        secrets: Name to data, in base64 as the API gives it.

    Raises:
        KeyError: a secret, or a key of it, is not there.
    """
    env: dict[str, str] = {}
    for entry in entries:
        source = entry.get("valueFrom", {})
        if "fieldRef" in source:
            value = fields.get(source["fieldRef"]["fieldPath"], "")
        elif "secretKeyRef" in source:
            ref = source["secretKeyRef"]
            value = base64.b64decode(secrets[ref["name"]][ref["key"]]).decode()
        else:
            value = expand(entry.get("value", ""), env)
        env[entry["name"]] = value
    return env


def words(container: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """Return the command line of a container."""
    given = [*container.get("command", ()), *container.get("args", ())]
    return [expand(word, env) for word in given]
