"""Where load goes, and the bytes of one request to there."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pytest_pd.errors import SpecError
from pytest_pd.load.prompts import Prompt

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Host and port of a target, split from its URL."""

    scheme: str
    host: str
    port: int
    base_path: str

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


SHORTENING = frozenset(
    {
        *("ignore_eos", "max_tokens", "max_completion_tokens", "stop"),
        *("stop_token_ids", "response_format", "structured_outputs", "tools"),
        *("guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    }
)
"""Fields of a body with which an answer may be shorter than its prompt asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An OpenAI-compatible endpoint.

    Attributes:
        url: Base URL, for example ``http://127.0.0.1:8000``.
        model: Served name; empty leaves ``model`` out of the request.
        endpoint: Path below the URL: completions or chat completions.
        headers: Sent with every request. May hold a key: never printed.
        body: Fields added to every request body; they win over ours.
        ignore_eos: Ask the engine (vLLM's extension) not to stop early.
        ca_file: PEM bundle to trust for https; empty for the system's.
        gpus: GPUs of the sending host that serve it: what befalls others spoils no
            figure. None: any of them may.
    """

    url: str
    model: str = ""
    endpoint: str = "/v1/completions"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] = field(default_factory=dict)
    ignore_eos: bool = True
    ca_file: Path | None = None
    gpus: Sequence[int] | None = None

    def __post_init__(self) -> None:
        _ = self.address
        _check_headers(self.headers)

    @property
    def address(self) -> Address:
        """Return the parts of the URL.

        Raises:
            SpecError: the URL is not http(s) or has no host.
        """
        try:
            parts = urlsplit(self.url)
            port = parts.port
            (parts.hostname or "").encode("idna")  # as the look-up of it will
        except ValueError as error:
            raise SpecError(f"URL {self.url!r} cannot be read: {error}.") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SpecError(
                f"URL {self.url!r} is not of the form http://host:port.",
                hint="for example http://127.0.0.1:8000",
            )
        return Address(
            scheme=parts.scheme,
            host=parts.hostname,
            port=port or (443 if parts.scheme == "https" else 80),
            base_path=parts.path.rstrip("/"),
        )

    @property
    def fixes_length(self) -> bool:
        """True when every answer has to be as long as its prompt asks."""
        return self.ignore_eos and SHORTENING.isdisjoint(self.body)

    @property
    def is_chat(self) -> bool:
        return self.endpoint.endswith("chat/completions")

    def tls(self) -> ssl.SSLContext | None:
        """Return the context for https, else None."""
        if self.address.scheme != "https":
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SpecError(
                f"CA file {str(self.ca_file)!r} cannot be read: {error}."
            ) from error


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not name.isascii() or any(map(_is_control, name + value)):
            # the value may be a key, so only the name is told
            raise SpecError(f"Header {name!r} holds characters HTTP forbids.")
        if name.lower() in ("content-length", "transfer-encoding", "host"):
            raise SpecError(f"Header {name!r} is written by the load generator.")


def _is_control(character: str) -> bool:
    return character == "\x7f" or (character < " " and character != "\t")


def request_body(target: Target, prompt: Prompt, history: str = "") -> dict[str, Any]:
    """Return the JSON body that asks for a stream with usage at its end.

    Args:
        target: Decides between completions and chat.
        prompt: What to send.
        history: Text of the conversation before this turn.
    """
    body: dict[str, Any] = {"model": target.model} if target.model else {}
    if target.is_chat:
        body["messages"] = [{"role": "user", "content": history + prompt.text}]
        body["max_completion_tokens"] = prompt.output_tokens
    else:
        body["prompt"] = list(prompt.token_ids) or history + prompt.text
        body["max_tokens"] = prompt.output_tokens
    body |= {
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if target.ignore_eos:
        body["ignore_eos"] = True
    return {**body, **target.body}


class RequestWriter:
    """Writes whole HTTP/1.1 requests; the unchanging part is made once."""

    def __init__(self, target: Target) -> None:
        address = target.address
        lines = [
            f"POST {address.base_path}{target.endpoint} HTTP/1.1",
            f"Host: {address.netloc}",
            "Accept: text/event-stream, application/json",
            "Accept-Encoding: identity",
            "Content-Type: application/json",
            *(f"{name}: {value}" for name, value in target.headers.items()),
        ]
        self._target = target
        self._head = "\r\n".join(lines).encode("latin-1", "replace")

    def write(self, index: int, prompt: Prompt, history: str = "") -> bytes:
        """Return the bytes of request `index`, which is also its X-Request-Id."""
        body = json.dumps(request_body(self._target, prompt, history)).encode()
        tail = f"\r\nX-Request-Id: pd-{index}\r\nContent-Length: {len(body)}\r\n\r\n"
        return self._head + tail.encode() + body
