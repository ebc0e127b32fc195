"""One plain HTTP request; no proxy variables, no redirects, no pool."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pytest_pd.errors import InfrastructureLost


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of one exchange."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """Return the parsed body; None when it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def request(url: str, *, body: object | None = None, timeout_s: float = 2.0) -> Answer:
    """GET, or POST `body` as JSON.

    Raises:
        InfrastructureLost: no answer within `timeout_s` per read, with the cause
            in a few words (``refused``, ``timed out``).
    """
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    data = None if body is None else json.dumps(body).encode()
    make = (
        http.client.HTTPSConnection
        if parts.scheme == "https"
        else http.client.HTTPConnection
    )
    connection = make(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        headers = {"Content-Type": "application/json"} if data else {}
        connection.request("POST" if data else "GET", path, data, headers)
        response = connection.getresponse()
        return Answer(response.status, response.read())
    except (OSError, http.client.HTTPException) as error:
        raise InfrastructureLost(f"{url}: {in_words(error)}") from error
    finally:
        connection.close()


def in_words(error: Exception) -> str:
    """Return what went wrong with a connection, for a line of progress."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
