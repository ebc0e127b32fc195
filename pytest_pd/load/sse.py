"""Server-sent events: where each one ends, and what it says.

The stream is cut and read after the request is over, so the reading costs no
latency. Most events of an answer differ in one string only: one of them is parsed as
JSON, and those that agree with it outside that string are cut apart all at once.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pytest_pd.load.record import Array, Event, TokenSource

_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_NEWLINE = re.compile(rb"\r\n|\n|\r")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_ESCAPED = re.compile(rb'(?>[^"\\\x00-\x1f]+|\\(?>["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+')
"""Possessive: what does not fit is refused after one look at each byte."""
_LEAD = b"data: "
MOST_TOKENS = 2**31
"""A record's column holds no more; no answer has so many."""
_TRAIL = b"\n\n"


def next_event(payload: bytes, start: int) -> tuple[bytes, int] | None:
    """Return the event at `start` and the offset after its blank line.

    None when no blank line follows: what is left is no event.
    """
    found = _BLANK_LINE.search(payload, start)
    return (payload[start : found.start()], found.end()) if found else None


def event_data(event: bytes) -> bytes | None:
    """Return the data of an event, its lines joined; None for a comment."""
    if event.startswith(b"data:") and b"\n" not in event and b"\r" not in event:
        return event[6:] if event[5:6] == b" " else event[5:]
    lines = [
        line[5:].removeprefix(b" ")
        for line in _NEWLINE.split(event.removeprefix(b"\xef\xbb\xbf"))
        if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None


@dataclass(slots=True)
class Template:
    """The part of an event that stays the same through an answer."""

    lead: bytes = b""
    suffix: bytes = b""

    def learn(self, data: bytes, text: str) -> None:
        """Remember the surroundings of `text`, if its place is beyond doubt."""
        value = b'"' + text.encode("utf-8", "surrogatepass") + b'"'
        at = data.find(value)
        if _PLAIN.fullmatch(value[1:-1]) and data.find(value, at + 1) < 0 <= at:
            self.lead = _LEAD + data[: at + 1]
            self.suffix = data[at + len(value) - 1 :] + _TRAIL

    def run(self, payload: bytes, start: int) -> list[bytes]:
        """Return the raw strings of the events from `start` that fit.

        The separator holds raw newlines, which no JSON string can: what lies
        between two of them is the string of one event, or begins with one that
        does not fit.
        """
        if not self.lead or not payload.startswith(self.lead, start):
            return []
        pieces = payload[start + len(self.lead) :].split(self.suffix + self.lead)
        last, found, _ = pieces[-1].partition(self.suffix)
        pieces[-1:] = [last] if found else []
        if _PLAIN.fullmatch(b"".join(pieces)):
            return pieces
        for k, piece in enumerate(pieces):
            if not _ESCAPED.fullmatch(piece):
                return pieces[:k]
        return pieces


def unescaped(piece: bytes) -> bytes:
    """Return the raw JSON string `piece` in UTF-8."""
    if b"\\" not in piece:
        return piece
    text = json.loads('"' + piece.decode("utf-8", "replace") + '"')
    return str(text).encode("utf-8", "surrogatepass")


@dataclass(slots=True)
class Answer:
    """What the events of one request said.

    Attributes:
        ends: For each data event the offset in the payload after its blank line;
            comments and ``[DONE]`` are left out.
        flags: One `Event` for each of them.
        tokens: Output tokens that each brought, 0 where it did not say.
        text: Content, reasoning included, in UTF-8.
        input_tokens, output_tokens, cached_tokens: From usage, else -1.
        token_source: Where `output_tokens` is from.
        error: Text of an error event; empty for none.
        finish_reason: As the server said it; empty when it did not.
        is_done: ``[DONE]`` was seen.
        response_id: The id of the answer, which may name its workers.
    """

    ends: Array = field(default_factory=lambda: np.zeros(0, "i8"))
    flags: Array = field(default_factory=lambda: np.zeros(0, "u1"))
    tokens: Array = field(default_factory=lambda: np.zeros(0, "i8"))
    text: bytearray = field(default_factory=bytearray)
    input_tokens: int = -1
    output_tokens: int = -1
    cached_tokens: int = -1
    token_source: TokenSource = TokenSource.UNKNOWN
    error: str = ""
    finish_reason: str = ""
    is_done: bool = False
    response_id: str = ""
    _usage_so_far: int = 0


class AnswerReader:
    """Reads the payload of one request."""

    def __init__(self) -> None:
        self._answer = Answer()
        self._template = Template()
        self._ends: list[Array] = []
        self._flags: list[Array] = []
        self._tokens: list[Array] = []

    def read(self, payload: bytes) -> Answer:
        """Read every event and settle how many tokens there were."""
        position = 0
        while True:
            if pieces := self._template.run(payload, position):
                position = self._add_run(pieces, position)
            found = next_event(payload, position)
            if found is None:
                break
            event, position = found
            data = event_data(event)
            if data is not None:
                self._read(position, data)
        return self._finish()

    def _add_run(self, pieces: list[bytes], position: int) -> int:
        """Add events that differ in their string only; return where they end."""
        template = self._template
        lengths = np.fromiter(map(len, pieces), "i8", len(pieces))
        around = len(template.lead) + len(template.suffix)
        ends = position + np.cumsum(lengths + around)
        self._ends.append(ends)
        self._flags.append((lengths > 0).astype("u1") * np.uint8(Event.CONTENT))
        self._tokens.append(np.zeros(len(pieces), "i8"))
        joined = b"".join(pieces)
        if b"\\" in joined:
            joined = b"".join(map(unescaped, pieces))
        self._answer.text += joined
        return int(ends[-1])

    def _read(self, end: int, data: bytes) -> None:
        answer = self._answer
        if data.strip() == b"[DONE]":
            answer.is_done = True
            return
        try:
            message = json.loads(data)
        except (ValueError, RecursionError):
            answer.error = f"not JSON: {data[:200]!r}"
            return
        if not isinstance(message, dict) or message.get("error"):
            answer.error = error_text(message)
            return
        try:
            flags, tokens, text = _read_message(answer, message)
        except (AttributeError, TypeError):
            answer.error = f"no event of this API: {data[:200]!r}"
            return
        if flags == Event.CONTENT and not tokens:
            self._template.learn(data, text)
        self._ends.append(np.array([end], "i8"))
        self._flags.append(np.array([flags], "u1"))
        self._tokens.append(np.array([tokens], "i8"))
        answer.text += text.encode("utf-8", "surrogatepass")

    def _finish(self) -> Answer:
        answer = self._answer
        if self._ends:
            answer.ends = np.concatenate(self._ends)
            answer.flags = np.concatenate(self._flags)
            answer.tokens = np.concatenate(self._tokens)
        _settle_tokens(answer)
        return answer


def error_text(message: Any) -> str:
    """Return what an error body says, in at most 300 characters."""
    error = message.get("error", message) if isinstance(message, dict) else message
    if isinstance(error, dict):
        error = error.get("message") or error
    return str(error)[:300]


def _read_message(answer: Answer, message: dict[str, Any]) -> tuple[int, int, str]:
    """Return flags, tokens and text of one parsed event."""
    answer.response_id = answer.response_id or str(message.get("id") or "")
    flags, tokens, texts = Event(0), 0, []
    for choice in message.get("choices") or ():
        delta = choice.get("delta") or choice
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        text = delta.get("content") or delta.get("text") or ""
        ids = choice.get("token_ids") or delta.get("token_ids") or ()
        tokens += len(ids)
        if reasoning:
            flags |= Event.REASONING
        if text or reasoning or ids or delta.get("tool_calls"):
            flags |= Event.CONTENT
        if choice.get("finish_reason"):
            flags |= Event.FINISH
            answer.finish_reason = str(choice["finish_reason"])
        texts.append(str(reasoning) + str(text))
    usage = message.get("usage")
    if isinstance(usage, dict):
        flags, tokens = _read_usage(answer, usage, flags, tokens)
    return flags, tokens, "".join(texts)


def _read_usage(
    answer: Answer, usage: dict[str, Any], flags: Event, tokens: int
) -> tuple[Event, int]:
    answer.input_tokens = _count(usage, "prompt_tokens", answer.input_tokens)
    answer.output_tokens = _count(usage, "completion_tokens", answer.output_tokens)
    details = usage.get("prompt_tokens_details")
    if isinstance(details, dict):
        answer.cached_tokens = _count(details, "cached_tokens", answer.cached_tokens)
    grown = max(answer.output_tokens, 0) - answer._usage_so_far
    answer._usage_so_far = max(answer.output_tokens, 0)
    if flags & Event.CONTENT and not tokens and grown > 0:
        tokens = grown
    return flags | Event.USAGE, tokens


def _count(usage: dict[str, Any], name: str, old: int) -> int:
    value = usage.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return old
    return value if abs(value) < MOST_TOKENS else old


def _settle_tokens(answer: Answer) -> None:
    if answer.output_tokens >= 0:
        answer.token_source = TokenSource.USAGE
    elif total := int(answer.tokens.sum()):
        answer.output_tokens = total
        answer.token_source = TokenSource.TOKEN_IDS
    elif len(answer.flags):
        is_content = (answer.flags & np.uint8(Event.CONTENT)) != 0
        answer.output_tokens = int(is_content.sum())
        answer.token_source = TokenSource.EVENTS
