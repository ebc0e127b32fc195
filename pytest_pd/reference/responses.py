"""Bodies and stream chunks in the shapes of vLLM 0.32. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_pd.reference.protocol import Call
from pytest_pd.reference.request import Event, LogprobRow, Request
from pytest_pd.reference.tokenizer import Tokenizer

FINGERPRINT = "vllm-0.32.0-reference"
Json = dict[str, Any]


@dataclass(slots=True)
class Choice:
    """One answer while it grows.

    Attributes:
        index: Place in ``choices``.
        prompt_text: What `echo` repeats.
    """

    index: int
    request: Request
    prompt_text: str
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    rows: list[LogprobRow] = field(default_factory=list)
    last: Event | None = None
    told_chars: int = 0

    def take(self, event: Event) -> None:
        """Add what an event brought."""
        self.text += event.text
        self.tokens += event.tokens
        self.rows += event.logprobs
        if event.finish is not None:
            self.last = event


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the bodies of one call.

    Attributes:
        name: The id of the answer.
        created_s: Seconds since the epoch.
        details: Whether ``prompt_tokens_details`` is told.
    """

    call: Call
    tokenizer: Tokenizer
    name: str
    created_s: int
    details: bool

    def body(self, choices: Sequence[Choice]) -> Json:
        """Return the answer to a call without stream."""
        shown = [self._whole(choice) for choice in choices]
        last = choices[0].last
        head = self._head("chat.completion" if self.call.chat else "text_completion")
        full = {
            **head,
            "choices": shown,
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": {**self.usage(choices), "completion_tokens_details": None},
        }
        if self.call.chat:
            rows = self.prompt_rows(choices[0])
            ids = self._prompt_ids(choices[0])
            full |= {"prompt_logprobs": rows, "prompt_token_ids": ids}
            full |= {"prompt_text": None}
        kv = dict(last.kv_transfer) if last and last.kv_transfer else None
        return {
            **full,
            "kv_transfer_params": kv,
            "ec_transfer_params": None,
            "metrics": None,
        }

    def _whole(self, choice: Choice) -> Json:
        return (
            self._chat_choice(choice) if self.call.chat else self._text_choice(choice)
        )

    def _text_choice(self, choice: Choice) -> Json:
        call = self.call
        text = (choice.prompt_text if call.echo else "") + (
            "" if call.echo_only else choice.text
        )
        return {
            "index": choice.index,
            "text": text,
            "logprobs": self._text_logprobs(choice),
            **self._end(choice),
            "token_ids": choice.tokens if call.return_token_ids else None,
            "prompt_logprobs": self.prompt_rows(choice),
            "prompt_token_ids": self._prompt_ids(choice),
            "routed_experts": None,
        }

    def _chat_choice(self, choice: Choice) -> Json:
        silent = ("refusal", "annotations", "audio", "function_call", "reasoning")
        message = {"role": "assistant", "content": choice.text}
        return {
            "index": choice.index,
            "message": {**message, **dict.fromkeys(silent)},
            "logprobs": self.chat_logprobs(choice.rows),
            **self._end(choice),
            "token_ids": choice.tokens if self.call.return_token_ids else None,
            "routed_experts": None,
        }

    def _end(self, choice: Choice) -> Json:
        last = choice.last
        finish = last.finish if last else None
        reason = last.stop_reason if last else None
        return {"finish_reason": finish, "stop_reason": reason}

    def _prompt_ids(self, choice: Choice) -> list[int] | None:
        return list(choice.request.prompt) if self.call.return_token_ids else None

    def usage(self, choices: Sequence[Choice], *, bare: bool = False) -> Json:
        """Return ``usage`` over all choices; prompts count once."""
        per_prompt = choices[:: self.call.choices]
        prompt = sum(choice.request.prompt_tokens for choice in per_prompt)
        told = 0 if self.call.echo_only else sum(len(c.tokens) for c in choices)
        usage: Json = {
            "prompt_tokens": prompt,
            "total_tokens": prompt + told,
            "completion_tokens": told,
        }
        if self.details:
            cached = sum(choice.request.reported_cached for choice in per_prompt)
            usage["prompt_tokens_details"] = {
                "cached_tokens": cached,
                "created_cache_tokens": None,
                "multimodal_tokens": None,
            }
        elif not bare:
            usage["prompt_tokens_details"] = None
        return usage

    def opening(self, choice: Choice) -> Json:
        """Return the first chunk of a chat stream: the role."""
        delta = {"role": "assistant", "content": ""}
        return {
            **self._head("chat.completion.chunk"),
            "choices": [_delta(choice.index, delta, None)],
            "prompt_token_ids": self._prompt_ids(choice),
            "prompt_text": None,
        }

    def chunk(self, choice: Choice, event: Event, *, first: bool) -> Json:
        """Return the chunk of one event; the first one of an echo has the prompt."""
        made = self._chat_chunk(choice, event)
        if not self.call.chat:
            made = self._text_chunk(choice, event, first=first)
        if self.call.continuous_usage:
            made["usage"] = self.usage([choice], bare=True)
        return made

    def _chat_chunk(self, choice: Choice, event: Event) -> Json:
        rows = self.chat_logprobs(event.logprobs)
        shown = _delta(choice.index, {"content": event.text}, rows)
        shown["finish_reason"] = event.finish
        if event.finish is not None:
            shown["stop_reason"] = event.stop_reason
        ids = list(event.tokens) if self.call.return_token_ids else None
        shown["token_ids"] = ids
        return {**self._head("chat.completion.chunk"), "choices": [shown]}

    def _text_chunk(self, choice: Choice, event: Event, *, first: bool) -> Json:
        echo = self.call.echo and first
        own = "" if self.call.echo_only else event.text
        ids = list(event.tokens) if self.call.return_token_ids else None
        shown = {
            "index": choice.index,
            "text": (choice.prompt_text if echo else "") + own,
            "logprobs": self._chunk_logprobs(choice, event, echo=echo),
            "finish_reason": event.finish,
            "stop_reason": event.stop_reason,
            "prompt_token_ids": self._prompt_ids(choice) if first else None,
            "token_ids": ids,
        }
        return {**self._head("text_completion"), "choices": [shown]}

    def closing(self, choices: Sequence[Choice]) -> Json:
        """Return the chunk with the usage that ends a stream."""
        kind = "chat.completion.chunk" if self.call.chat else "text_completion"
        usage = self.usage(choices, bare=True)
        return {
            **self._head(kind),
            "choices": [],
            "usage": usage,
            "system_fingerprint": FINGERPRINT,
        }

    def _head(self, kind: str) -> Json:
        return {
            "id": self.name,
            "object": kind,
            "created": self.created_s,
            "model": self.call.model,
        }

    def prompt_rows(self, choice: Choice) -> list[Json | None] | None:
        """Return ``prompt_logprobs``: nothing for the first token, then a mapping."""
        if self.call.sampling.prompt_logprobs is None:
            return None
        words = self.tokenizer.words
        shown: list[Json | None] = [None]
        for row in choice.request.prompt_rows:
            shown.append(
                {
                    str(entry.token): {
                        "logprob": entry.logprob,
                        "rank": entry.rank,
                        "decoded_token": words[entry.token],
                    }
                    for entry in row
                }
            )
        return shown

    def _text_logprobs(self, choice: Choice) -> Json | None:
        """Return the ``logprobs`` of a completion; an echo has the prompt's first."""
        if self.call.sampling.logprobs is None:
            return None
        tokens: list[int] = []
        rows: list[LogprobRow | None] = []
        if self.call.echo:
            tokens += choice.request.prompt
            rows += [None, *choice.request.prompt_rows]
        if not self.call.echo_only:
            tokens += choice.tokens
            rows += choice.rows
        return self._columns(tokens, rows, 0)

    def _chunk_logprobs(
        self, choice: Choice, event: Event, *, echo: bool
    ) -> Json | None:
        if self.call.sampling.logprobs is None:
            return None
        tokens, rows = list(event.tokens), list[LogprobRow | None](event.logprobs)
        if self.call.echo_only:
            tokens, rows = [], []
        if echo:
            tokens = [*choice.request.prompt, *tokens]
            rows = [None, *choice.request.prompt_rows, *rows]
        columns = self._columns(tokens, rows, choice.told_chars)
        choice.told_chars += sum(len(word) for word in columns["tokens"])
        return columns

    def _columns(
        self, tokens: Sequence[int], rows: Sequence[LogprobRow | None], start: int
    ) -> Json:
        words = [self.tokenizer.words[token] for token in tokens]
        offsets = [start]
        for word in words:
            offsets.append(offsets[-1] + len(word))
        return {
            "text_offset": offsets[: len(words)],
            "token_logprobs": [row[0].logprob if row else None for row in rows],
            "tokens": words,
            "top_logprobs": [
                {self.tokenizer.words[e.token]: e.logprob for e in row} if row else None
                for row in rows
            ],
        }

    def chat_logprobs(self, rows: Sequence[LogprobRow]) -> Json | None:
        """Return the ``logprobs`` of a chat answer."""
        if self.call.sampling.logprobs is None:
            return None
        best = self.call.sampling.logprobs
        content = []
        for row in rows:
            ranked = sorted(row, key=lambda entry: entry.rank)[:best]
            top = [self._chat_entry(e.token, e.logprob) for e in ranked]
            own = self._chat_entry(row[0].token, row[0].logprob)
            content.append({**own, "top_logprobs": top})
        return {"content": content}

    def _chat_entry(self, token: int, logprob: float) -> Json:
        word = self.tokenizer.words[token]
        return {"token": word, "logprob": logprob, "bytes": list(word.encode())}


def _delta(index: int, delta: Mapping[str, Any], logprobs: Json | None) -> Json:
    return {
        "index": index,
        "delta": dict(delta),
        "logprobs": logprobs,
        "finish_reason": None,
    }
