"""Server-sent events: where each one ends, and what it says.

The stream is cut and read after the request is over, so the reading costs no
latency. Most events of an answer differ in one string only: the first is parsed as
JSON, those that agree with it outside that string are not parsed again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from pytest_pd.load.record import Event, TokenSource

_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_NEWLINE = re.compile(rb"\r\n|\n|\r")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')


def split_events(payload: bytes) -> tuple[list[bytes], list[int]]:
    """Cut `payload` at blank lines.

    Returns:
        The events without their blank lines, and for each the offset just after
        its blank line. What follows the last blank line is no event.
    """
    if b"\r" not in payload:
        events = payload.split(b"\n\n")
        events.pop()
        ends, position = [], 0
        for event in events:
            position += len(event) + 2
            ends.append(position)
        return events, ends
    events, ends, start = [], [], 0
    for match in _BLANK_LINE.finditer(payload):
        events.append(payload[start : match.start()])
        start = match.end()
        ends.append(start)
    return events, ends


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

    prefix: bytes = b"\0"
    suffix: bytes = b""

    def match(self, data: bytes) -> bytes | None:
        """Return the raw string in `data` if the rest is known, else None."""
        start, end = len(self.prefix), len(data) - len(self.suffix)
        if (
            start <= end
            and data.startswith(self.prefix)
            and data.endswith(self.suffix)
            and _PLAIN.fullmatch(data, start, end)
        ):
            return data[start:end]
        return None

    def learn(self, data: bytes, text: str) -> None:
        """Remember the surroundings of `text`, if its place is beyond doubt."""
        value = b'"' + text.encode() + b'"'
        at = data.find(value)
        if _PLAIN.fullmatch(value[1:-1]) and data.find(value, at + 1) < 0 <= at:
            self.prefix = data[: at + 1]
            self.suffix = data[at + len(value) - 1 :]


@dataclass(slots=True)
class Answer:
    """What the events of one request said.

    Attributes:
        flags: One `Event` per data event, in order; comments are left out.
        positions: Index of each of them among all events.
        tokens: Output tokens that each event brought, 0 where it did not say.
        text: Content, reasoning included, in UTF-8.
        input_tokens, output_tokens, cached_tokens: From usage, else -1.
        token_source: Where `output_tokens` is from.
        error: Text of an error event; empty for none.
        finish_reason: As the server said it; empty when it did not.
        is_done: ``[DONE]`` was seen.
        response_id: The id of the answer, which may name its workers.
    """

    flags: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
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
    """Reads the events of one request, one after the other."""

    def __init__(self) -> None:
        self.answer = Answer()
        self._template = Template()

    def read_all(self, events: list[bytes]) -> Answer:
        """Read every event and settle how many tokens there were."""
        for position, event in enumerate(events):
            data = event_data(event)
            if data is not None:
                self._read(position, data)
        _settle_tokens(self.answer)
        return self.answer

    def _read(self, position: int, data: bytes) -> None:
        text = self._template.match(data)
        if text is not None:
            self._add(position, Event.CONTENT if text else 0, 0, text)
        elif data.strip() == b"[DONE]":
            self.answer.is_done = True
        else:
            self._read_json(position, data)

    def _read_json(self, position: int, data: bytes) -> None:
        try:
            message = json.loads(data)
        except ValueError:
            self.answer.error = f"not JSON: {data[:200]!r}"
            return
        if not isinstance(message, dict) or message.get("error"):
            self.answer.error = error_text(message)
            return
        flags, tokens, text = _read_message(self.answer, message)
        if flags == Event.CONTENT and not tokens:
            self._template.learn(data, text)
        self._add(position, flags, tokens, text.encode("utf-8", "surrogatepass"))

    def _add(self, position: int, flags: int, tokens: int, text: bytes) -> None:
        answer = self.answer
        answer.positions.append(position)
        answer.flags.append(flags)
        answer.tokens.append(tokens)
        answer.text += text


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
    return value if isinstance(value, int) and not isinstance(value, bool) else old


def _settle_tokens(answer: Answer) -> None:
    if answer.output_tokens >= 0:
        answer.token_source = TokenSource.USAGE
    elif total := sum(answer.tokens):
        answer.output_tokens = total
        answer.token_source = TokenSource.TOKEN_IDS
    elif answer.flags:
        answer.output_tokens = sum(1 for f in answer.flags if f & Event.CONTENT)
        answer.token_source = TokenSource.EVENTS
