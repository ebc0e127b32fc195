"""Prompts: seeded, unique by construction, of an exact number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One request to make.

    Attributes:
        text: What is sent; empty when `token_ids` is set.
        token_ids: Token-id prompt, for engines reached without their tokenizer.
        input_tokens: Tokens of the prompt as the model's tokenizer counts them;
            0 when unknown.
        output_tokens: `max_tokens` of the request.
        at_s: Intended start, seconds from the start of the phase (trace replay).
        follows: Index of the prompt whose conversation this one continues; it
            is sent after that one ended, with its text and answer in front.
        think_s: Seconds between the end of that one and this one.
        session: Conversation or user this prompt belongs to; -1 for none.
    """

    text: str = ""
    token_ids: tuple[int, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 16
    at_s: float | None = None
    follows: int | None = None
    think_s: float = 0.0
    session: int = -1


def total_output_tokens(prompts: Sequence[Prompt]) -> int:
    """Return how many output tokens `prompts` ask for together."""
    return sum(prompt.output_tokens for prompt in prompts)
