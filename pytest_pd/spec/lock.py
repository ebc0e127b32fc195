"""Reading a lock file back, and noticing that somebody changed it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.spec.document import Document

LOCK_VERSION = 1


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 over everything in a lock file but the digest itself."""
    kept = {key: value for key, value in content.items() if key != "digest"}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def is_lock(document: Document) -> bool:
    """Return whether the file is a lock and no topology."""
    return isinstance(document.data, dict) and "lock" in document.data


def unlock(document: Document, part: str) -> Document:
    """Return the specification ``topology`` or ``cluster`` out of a lock file.

    Raises:
        SpecError: another version, or changed since it was written.
    """
    data = document.data
    if data["lock"] != LOCK_VERSION:
        raise SpecError(
            f"{document.path} is a lock of version {data['lock']!r}; this pytest-pd "
            f"reads {LOCK_VERSION}.",
            hint="use the topology file that it was made from",
        )
    if data.get("digest") != digest_of(data):
        raise SpecError(
            f"{document.path} was changed after it was written.",
            hint="edit the topology file and let a new lock be written",
        )
    lines = {
        place[1:]: line
        for place, line in document.lines.items()
        if place[:1] == (part,)
    }
    return Document(document.path, data[part], lines)
