"""Prompts with a known answer for the recall model (see `recall.py`). Pure.

``, w017 w233 , w101 w017 , ... ? w101`` asks for the successors of ``w101`` in a
shuffled cycle of pairs: every answer token is one look-up in the prompt's KV, so a
chain over the whole cycle reads every block of the prompt.
"""

from __future__ import annotations

import random
from typing import NamedTuple

SYMBOLS = 256
_TOKENS_PER_PAIR = 3
_TOKENS_FIXED = 3
"""``<s>`` in front, ``?`` and the start symbol behind."""


class RecallPrompt(NamedTuple):
    """A prompt and the greedy answer that follows from it."""

    text: str
    expected: list[str]

    @property
    def expected_text(self) -> str:
        """The completion, as `/v1/completions` returns it."""
        return "".join(f" {token}" for token in self.expected)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt with the leading ``<s>`` of the tokenizer."""
        return len(self.text.split()) + 1


def make_recall(
    seed: int | str,
    pairs: int = 60,
    chain: int = 16,
    *,
    length_tokens: int | None = None,
) -> RecallPrompt:
    """Return a prompt and its answer, the same for the same arguments.

    Args:
        seed: Prompts of different seeds have nothing but their form in common.
        pairs: Look-ups to choose from, 2 to 256; ignored with `length_tokens`.
        chain: Answer tokens; a chain longer than the cycle goes round again.
        length_tokens: Exact length with ``<s>``, 9 or more; commas fill up what
            three tokens a pair, for at most 256 pairs, leave over.

    Raises:
        ValueError: the cycle would have fewer than 2 or more than 256 symbols.
    """
    filler = 0
    if length_tokens is not None:
        pairs = min((length_tokens - _TOKENS_FIXED) // _TOKENS_PER_PAIR, SYMBOLS)
        filler = length_tokens - _TOKENS_FIXED - _TOKENS_PER_PAIR * pairs
    if not 2 <= pairs <= SYMBOLS:
        raise ValueError(f"{pairs} pairs: a cycle has 2 to {SYMBOLS} symbols")
    draw = random.Random(f"recall:{seed}")
    cycle = draw.sample(range(SYMBOLS), pairs)
    edges = [(cycle[i], cycle[(i + 1) % pairs]) for i in range(pairs)]
    draw.shuffle(edges)
    start = draw.randrange(pairs)
    body = " ".join(f", w{left:03d} w{right:03d}" for left, right in edges)
    # behind the pairs: a prefix cache must not find one prompt's blocks in another
    text = f"{body} " + ", " * filler + f"? w{cycle[start]:03d}"
    answer = [f"w{cycle[(start + k) % pairs]:03d}" for k in range(1, chain + 1)]
    return RecallPrompt(text, answer)


def block_edge_lengths(block_size: int, blocks: int) -> tuple[int, int, int]:
    """Lengths round the edge after `blocks` blocks: one short, full, one over.

    The prefix cache, the hand-over by whole blocks and the last partial block all
    change there; ``len % block_size`` is ``block_size - 1``, 0 and 1.
    """
    edge = block_size * blocks
    return edge - 1, edge, edge + 1
