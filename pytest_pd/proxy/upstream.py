"""Requests to workers: pooled connections in, whole answers or open streams out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from pytest_pd.proxy.replies import Answer
from pytest_pd.proxy.worker import Worker

RANK_HEADER = "X-data-parallel-rank"
EVENT_STREAM = "text/event-stream"
# uvicorn closes idle connections after 5 s; one closed under our hands is a failure.
KEEP_ALIVE_S = 4.0

# Of one connection, or written anew by the side that sends the message.
_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-connection", "proxy-authenticate",
        "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
# The body goes on as the server side has read it: unpacked, and of known length.
_NOT_TO_WORKER = _HOP_BY_HOP | {"host", "content-length", "content-encoding", "expect"}
_NOT_TO_CLIENT = _HOP_BY_HOP | {"content-length", "date", "server"}


class UpstreamError(Exception):
    """A worker did not serve a request, and the client has had nothing of it yet.

    Args:
        reason: One word for metrics: connect, timeout, reset, status_500, ...
        detail: The rest, for logs.
        taken: Whether the worker may have begun on the request.
        answer: What it said, where it said something.
    """

    def __init__(
        self, reason: str, detail: str, *, taken: bool, answer: Answer | None = None
    ) -> None:
        self.reason = reason
        self.detail = detail
        self.taken = taken
        self.answer = answer
        super().__init__(f"{reason}: {detail}")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer whose head and first piece are here, and whose rest may still come.

    Attributes:
        status: HTTP status of the worker.
        headers: Its headers, without those of the connection.
        first: The first piece of the body; the whole body when it is no stream.
        first_at_s: Monotonic seconds at which the first piece was read.
        stream: The open response of a stream, else None.
    """

    status: int
    headers: Mapping[str, str]
    first: bytes
    first_at_s: float
    stream: aiohttp.ClientResponse | None

    async def rest(self) -> AsyncIterator[bytes]:
        """Yield the pieces after the first as the worker sent them.

        Raises:
            UpstreamError: the connection broke or stalled.
        """
        if self.stream is None:
            return
        try:
            while piece := await _piece(self.stream):
                yield piece
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _failure(error) from error

    def close(self) -> None:
        """Let the connection go; one with an unread rest is cut, so that the worker
        notices and stops computing."""
        if self.stream is not None:
            self.stream.close()


class Upstream:
    """The client side of the proxy.

    Args:
        api_key: Bearer key for requests that bring no ``Authorization``.
        connect_timeout_s: Seconds to reach a worker.
        idle_timeout_s: Seconds without a byte before a worker counts as stalled.
    """

    def __init__(
        self, *, api_key: str, connect_timeout_s: float, idle_timeout_s: float
    ) -> None:
        self._api_key = api_key
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=connect_timeout_s, sock_read=idle_timeout_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )
        self._urls: dict[tuple[str, str], URL] = {}

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def get(self, worker: Worker, path: str, timeout_s: float) -> int:
        """Return the status of a GET, for probes.

        Raises:
            UpstreamError: there was no answer in time.
        """
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._session.get(
                    self._url(worker, path),
                    headers=self._headers({}, worker),
                    allow_redirects=False,
                ) as response,
            ):
                await response.read()
                return response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _failure(error) from error

    async def send(
        self,
        worker: Worker,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        method: str = "POST",
    ) -> Reply:
        """Send a request; return when the first piece of the answer is here.

        Raises:
            UpstreamError: it failed before that, or the status is 500 or more.
        """
        response = None
        try:
            response = await self._session.request(
                method,
                self._url(worker, path),
                data=body,
                headers=self._headers(headers, worker),
                allow_redirects=False,
            )
            reply = await _reply(response)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            _cut(response)
            raise _failure(error) from error
        except BaseException:
            _cut(response)
            raise
        if reply.status >= 500:
            raise _refusal(reply)
        return reply

    def _url(self, worker: Worker, path: str) -> URL:
        key = (worker.address.base, path)
        found = self._urls.get(key)
        if found is None:
            found = self._urls[key] = URL(worker.address.base + path, encoded=True)
        return found

    def _headers(self, headers: Mapping[str, str], worker: Worker) -> CIMultiDict[str]:
        sent = CIMultiDict(
            (name, value)
            for name, value in headers.items()
            if name.lower() not in _NOT_TO_WORKER and is_text(value)
        )
        sent["Accept-Encoding"] = "identity"  # the proxy reads what passes
        if self._api_key and "Authorization" not in sent:
            sent["Authorization"] = f"Bearer {self._api_key}"
        if worker.address.rank is not None:
            sent[RANK_HEADER] = str(worker.address.rank)
        return sent


def is_text(value: str) -> bool:
    """Return whether a header can be sent: bytes that are no UTF-8 can not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


async def _reply(response: aiohttp.ClientResponse) -> Reply:
    streams = response.headers.get("Content-Type", "").startswith(EVENT_STREAM)
    streams = streams and response.status < 400
    first = await (_piece(response) if streams else response.read())
    if streams and not first:
        raise aiohttp.ServerDisconnectedError("the stream ended before its first event")
    headers = {
        name: value
        for name, value in response.headers.items()
        if name.lower() not in _NOT_TO_CLIENT
    }
    now_s = time.monotonic()
    return Reply(response.status, headers, first, now_s, response if streams else None)


async def _piece(response: aiohttp.ClientResponse) -> bytes:
    """Return the next HTTP chunk, or as much of it as is here; empty at the end."""
    while True:
        piece, ends_chunk = await response.content.readchunk()
        if piece or not ends_chunk:
            return piece


def _cut(response: aiohttp.ClientResponse | None) -> None:
    if response is not None:
        response.close()


def _refusal(reply: Reply) -> UpstreamError:
    answer = Answer(reply.status, reply.first, reply.headers)
    said = reply.first[:200].decode(errors="replace")
    return UpstreamError(f"status_{reply.status}", said, taken=True, answer=answer)


def _failure(error: BaseException) -> UpstreamError:
    """Return what a library's error means here.

    The order matters: aiohttp's connect time-out is a time-out and a client error.
    """
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, aiohttp.ConnectionTimeoutError | aiohttp.ClientConnectorError):
        return UpstreamError("connect", detail, taken=False)
    if isinstance(error, TimeoutError):
        return UpstreamError("timeout", detail, taken=True)
    if isinstance(error, aiohttp.ClientPayloadError):
        return UpstreamError("broken_body", detail, taken=True)
    if isinstance(error, aiohttp.ClientResponseError):
        return UpstreamError("protocol", detail, taken=True)
    return UpstreamError("reset", detail, taken=True)
