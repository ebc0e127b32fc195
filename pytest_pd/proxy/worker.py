"""Where a worker is, what is known of its health, and how busy it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from pytest_pd.errors import SpecError

_URL = re.compile(
    r"(?P<base>https?://(?:\[[0-9a-fA-F:.]+\]|[^/@:\s\[\]?#]+)(?::\d{1,5})?)"
    r"(?:@(?P<rank>\d+))?"
    r"(?P<path>/[^?#\s]*)?"
)
_ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1")


class Role(StrEnum):
    """Which of the two stages a worker serves."""

    PREFILL = "prefill"
    DECODE = "decode"


class Health(StrEnum):
    """What the last probe or request has shown; unknown before the first."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Address:
    """Base URL without a trailing slash, and the data-parallel rank behind it."""

    base: str
    rank: int | None = None

    @property
    def name(self) -> str:
        """Return the label used in metrics, headers and logs."""
        return self.base if self.rank is None else f"{self.base}@{self.rank}"


def parse_address(text: str) -> Address:
    """Read ``http://host:port[@rank][/v1/completions]``.

    The endpoint is cut off, because the client's own path decides it: recipes
    write the URL with and without.

    Raises:
        SpecError: not such a URL, or it carries credentials.
    """
    found = _URL.fullmatch(text.strip())
    if found is None or not _can_be_asked(found["base"]):
        raise SpecError(
            f"{_without_credentials(text)!r} is not the URL of a worker.",
            hint="write http://10.0.0.1:8000, or http://10.0.0.1:8000@1 for rank 1; "
            "keys go to --api-key-env",
        )
    rank = found["rank"]
    base = found["base"] + _prefix(found["path"] or "")
    return Address(base, None if rank is None else int(rank))


def _can_be_asked(base: str) -> bool:
    """Tell whether port, brackets and labels of the host are such as HTTP takes."""
    try:
        parts = urlsplit(base)
        (parts.hostname or "").encode("idna")
        _ = parts.port  # told only when it is read
    except ValueError:
        return False
    return True


def _prefix(path: str) -> str:
    path = path.rstrip("/")
    for endpoint in _ENDPOINTS:
        if path.endswith(endpoint):
            return path.removesuffix(endpoint)
    return path


def _without_credentials(text: str) -> str:
    return re.sub(r"//[^/@]*:[^/@]*@", "//***@", text)


@dataclass(slots=True, eq=False)
class Worker:
    """One worker and its changing state; compared by identity."""

    role: Role
    address: Address
    health: Health = Health.UNKNOWN
    active: int = 0
    failures: int = 0
    last_error: str = ""
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.address.name

    def succeeded(self) -> None:
        """Reinstate the worker: it has answered."""
        self.health = Health.UP
        self.failures = 0
        self.last_error = ""

    def failed(self, why: str, *, threshold: int) -> None:
        """Count a failure in a row; at `threshold` the worker is down."""
        self.failures += 1
        self.last_error = why
        if self.failures >= threshold or self.health is Health.UNKNOWN:
            self.health = Health.DOWN
