"""One plain HTTP request; no proxy variables, no redirects, no pool."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

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
            in a few words (``refused``, ``timed out``); or `url` is none.
    """
    try:
        parts = urlsplit(url)
        connection = _connection(parts, timeout_s)
    except (ValueError, http.client.InvalidURL) as error:
        raise InfrastructureLost(
            f"{url}: {error}", hint="write http://HOST:PORT"
        ) from error
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    data = None if body is None else json.dumps(body).encode()
    try:
        headers = {"Content-Type": "application/json"} if data else {}
        connection.request("POST" if data else "GET", path, data, headers)
        response = connection.getresponse()
        return Answer(response.status, response.read())
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise InfrastructureLost(f"{url}: {in_words(error)}") from error
    finally:
        connection.close()


def _connection(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    is_tls = parts.scheme == "https"
    make = http.client.HTTPSConnection if is_tls else http.client.HTTPConnection
    return make(parts.hostname or "", parts.port, timeout=timeout_s)


def in_words(error: Exception) -> str:
    """Return what went wrong with a connection, for a line of progress."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__
