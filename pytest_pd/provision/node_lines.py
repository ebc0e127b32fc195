"""What nodes said about themselves, put together from the lines of `node_facts`."""

from __future__ import annotations

import json
from typing import Any

MARKER = "PDFACTS "


def read_facts(text: str) -> dict[str, dict[str, Any]]:
    """Return the facts by node; lines of other programs are passed over.

    The lines of several nodes may be mixed, each whole and in its node's order.
    """
    pieces: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith(MARKER):
            node, _, piece = line.removeprefix(MARKER).partition(" ")
            pieces.setdefault(node, []).append(piece)
    return {node: json.loads("".join(some)) for node, some in pieces.items()}
