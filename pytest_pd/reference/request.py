"""One request on its way through the engine, and what the client is told of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens and when to stop.

    Attributes:
        temperature: 0 is greedy.
        max_tokens: Most tokens to generate, at least 1.
        min_tokens: Tokens before which no stop token is chosen.
        seed: Makes sampling repeatable whatever else runs; None draws one.
        logprobs: Best tokens to report per generated token; None for no report.
        prompt_logprobs: The same for prompt tokens.
        stop: Texts that end the answer.
        stop_ids: Tokens that end the answer, ``</s>`` included unless ignored.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    stop: tuple[str, ...] = ()
    keep_stop: bool = False
    stop_ids: frozenset[int] = frozenset()

    def for_copy(self, copy: int) -> Sampling:
        """Return the sampling of answer `copy` of several to one prompt."""
        if self.seed is None or copy == 0:
            return self
        return replace(self, seed=self.seed + copy)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Logarithm of the probability of one token, natural, and its rank from 1."""

    token: int
    logprob: float
    rank: int


LogprobRow = tuple[TokenLogprob, ...]
"""The token that was chosen or given first, then the best ones it is not among."""


@dataclass(frozen=True, slots=True)
class Event:
    """What the engine tells the client's side about one request.

    Attributes:
        tokens: New tokens, usually one; empty when only the end is told.
        text: What they add to the answer.
        logprobs: One row per token where they were asked for.
        finish: Why it ended; None while it goes on.
        stop_reason: The stop text or token that ended it.
        kv_transfer: ``kv_transfer_params`` for the next engine.
        error: Why the engine gave up, with `finish` equal to ``error``.
    """

    tokens: tuple[int, ...] = ()
    text: str = ""
    logprobs: tuple[LogprobRow, ...] = ()
    finish: FinishReason | None = None
    stop_reason: str | int | None = None
    kv_transfer: Mapping[str, Any] | None = None
    error: str = ""


@dataclass(slots=True, eq=False)
class Request:
    """State of one request in the engine; only the engine's thread changes it.

    Attributes:
        tokens: Prompt and answer so far.
        computed: Leading tokens whose KV is in `blocks`.
        cached: Prompt tokens found in the own prefix cache at admission.
        external: Prompt tokens that came from another engine.
        claimed: Transferred tokens that a lying engine reports; None for honesty.
        recompute: Whether transferred KV is to be thrown away (a fault).
        mistaken: Whether its blocks are named without regard to its tokens (a fault).
        prompt_rows: Logprobs of the prompt tokens from the second on.
    """

    name: str
    prompt: Sequence[int]
    sampling: Sampling
    answer: Answer
    kv_transfer: Mapping[str, Any] | None = None
    arrived_s: float = 0.0
    tokens: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    computed: int = 0
    cached: int = 0
    external: int = 0
    claimed: int | None = None
    recompute: bool = False
    mistaken: bool = False
    prefilled: bool = False
    aborted: bool = False
    preemptions: int = 0
    scheduled_s: float = 0.0
    first_token_s: float = 0.0
    last_token_s: float = 0.0
    draws: random.Random = field(default_factory=random.Random)
    prompt_rows: list[LogprobRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.prompt)

    @property
    def generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - len(self.prompt)

    @property
    def pending(self) -> int:
        """Tokens whose KV is not there yet."""
        return len(self.tokens) - self.computed

    @property
    def reported_external(self) -> int:
        """Transferred prompt tokens as the metrics tell them."""
        return self.external if self.claimed is None else self.claimed

    @property
    def reported_cached(self) -> int:
        """Cached prompt tokens as ``usage`` tells them.

        After a pull vLLM repeats what the prefill engine had cached, not what it got.
        """
        if self.reported_external and (self.kv_transfer or {}).get("do_remote_prefill"):
            return int(
                (self.kv_transfer or {}).get("remote_prefill_cached_tokens") or 0
            )
        return self.cached + self.reported_external


class Answer:
    """The text of an answer; finds stop texts, also over the edges of tokens.

    Args:
        stop: Texts that end the answer.
        keep_stop: Leave the stop text in the answer.
    """

    def __init__(self, stop: Sequence[str] = (), *, keep_stop: bool = False) -> None:
        self._stop = tuple(stop)
        self._keep = keep_stop
        self._held = max((len(text) for text in self._stop), default=1) - 1
        self._text = ""
        self._told = 0

    def add(self, piece: str) -> str | None:
        """Add the text of a token; return the stop text that is complete now."""
        known = len(self._text)
        self._text += piece
        for stop in self._stop:
            at = self._text.find(stop, max(known - len(stop) + 1, 0))
            if at >= 0:
                self._text = self._text[: at + len(stop) if self._keep else at]
                return stop
        return None

    def take(self, *, final: bool) -> str:
        """Return text not told yet; what may become a stop text waits for the end."""
        end = (
            len(self._text) if final else max(len(self._text) - self._held, self._told)
        )
        piece, self._told = self._text[self._told : end], end
        return piece
