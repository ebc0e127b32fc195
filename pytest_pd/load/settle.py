"""Takes finished exchanges into the record: what was it, and how did it end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_pd.load.connection import Exchange
from pytest_pd.load.decode import Decoded, decode_error, decode_stream
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.record import Event, Outcome, Phase, Recorder

ERRORS_KEPT = 200


class Settler:
    """Writes one row, and its events and text, per finished exchange.

    Args:
        recorder: Where to.
        prompts: Say how long each prompt was when the server does not.
        shard: Number of this process among the shards.
    """

    def __init__(
        self, recorder: Recorder, prompts: Sequence[Prompt], *, shard: int = 0
    ) -> None:
        self._recorder = recorder
        self._prompts = prompts
        self._shard = shard
        self.phase = Phase.MEASURED

    def __call__(self, exchange: Exchange, outcome: Outcome) -> tuple[Outcome, str]:
        """Record `exchange`; return how it ended and the text of its answer."""
        decoded = _decode(exchange)
        if decoded is not None and decoded.fault:
            outcome, why = Outcome.MALFORMED, decoded.fault
        elif outcome is Outcome.OK:
            outcome, why = judge(exchange, decoded)
        else:
            why = exchange.error
        if outcome is not Outcome.OK and len(self._recorder.errors) < ERRORS_KEPT:
            self._recorder.errors[exchange.index] = why
        self._write_row(exchange, outcome, decoded)
        exchange.raw.clear()
        return outcome, decoded.answer.text.decode(
            "utf-8", "replace"
        ) if decoded else ""

    def _write_row(
        self, exchange: Exchange, outcome: Outcome, decoded: Decoded | None
    ) -> None:
        prompt = self._prompts[exchange.index]
        row = self._recorder.requests[exchange.index]
        row["phase"], row["outcome"] = self.phase, outcome
        row["shard"], row["session"] = self._shard, prompt.session
        row["connections"] = exchange.connections
        row["status"] = exchange.head.status if exchange.head else 0
        row["input_tokens"] = row["wanted_tokens"] = prompt.input_tokens
        for name in (
            "intended_ns",
            "sent_before_ns",
            "sent_after_ns",
            "connect_ns",
            "head_ns",
            "end_ns",
        ):
            row[name] = getattr(exchange, name)
        if decoded is not None:
            self._write_answer(row, decoded)

    def _write_answer(self, row: Any, decoded: Decoded) -> None:
        answer = decoded.answer
        row["token_source"] = answer.token_source
        row["done_marker"] = answer.is_done
        row["coalesced"] = decoded.coalesced
        row["output_tokens"] = max(answer.output_tokens, 0)
        row["cached_tokens"] = answer.cached_tokens
        if answer.input_tokens >= 0:
            row["input_tokens"] = answer.input_tokens
        row["event_start"] = self._recorder.add_events(decoded.block)
        row["event_count"] = len(answer.flags)
        row["text_start"] = self._recorder.add_text(bytes(answer.text))
        row["text_bytes"] = len(answer.text)


def _decode(exchange: Exchange) -> Decoded | None:
    head = exchange.head
    if head is None or head.status != 200 or not head.is_event_stream:
        return None
    return decode_stream(exchange.raw, head, exchange.reads)


def judge(exchange: Exchange, decoded: Decoded | None) -> tuple[Outcome, str]:
    """Return how an answer that came to its end has to be counted, and why.

    Status 200 is no success by itself: a stream can hold an error, stop early,
    or bring no token.
    """
    head = exchange.head
    assert head is not None
    if head.status != 200:
        return Outcome.HTTP_STATUS, f"{head.status}: {decode_error(exchange.raw, head)}"
    if decoded is None:
        return Outcome.MALFORMED, "status 200 and no event stream"
    answer = decoded.answer
    if answer.error:
        return Outcome.SSE_ERROR, answer.error
    if not decoded.is_whole:
        return Outcome.DISCONNECT, "the body ended before its framing did"
    if not answer.is_done and not answer.finish_reason:
        return Outcome.DISCONNECT, "neither a finish reason nor [DONE]"
    if answer.output_tokens <= 0:
        return Outcome.NO_OUTPUT, "not one output token"
    if not (answer.flags & Event.CONTENT).any():
        return Outcome.NO_OUTPUT, (
            f"{answer.output_tokens} output tokens by usage, and no event with text: "
            "are they special tokens?"
        )
    return Outcome.OK, ""
