"""Prompts: seeded, unique by construction, of an exact number of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pytest_pd.errors import SpecError
from pytest_pd.load.tokenizer import TokenIds, Tokenizer


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long prompts and answers are.

    Attributes:
        input_tokens: Tokens of a prompt, special tokens included.
        output_tokens: Tokens of an answer.
        ratio: Lengths are uniform between this share and the whole; 1 is fixed.
        shared_tokens: Of the input, tokens that prompts of one group share.
        groups: Number of different shared prefixes.
        seed: Of the lengths: whatever the prompts say, they are as long.
    """

    input_tokens: int = 128
    output_tokens: int = 16
    ratio: float = 1.0
    shared_tokens: int = 0
    groups: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise SpecError(f"Length ratio {self.ratio:g} is not in (0, 1].")
        if self.input_tokens < 1 or self.output_tokens < 1 or self.groups < 1:
            raise SpecError("Token counts and groups of a workload are at least 1.")
        if not 0 <= self.shared_tokens < self.input_tokens * self.ratio:
            raise SpecError(
                f"{self.shared_tokens} shared tokens do not leave room for unique "
                f"ones in {self.input_tokens * self.ratio:g}."
            )

    def draw(self, count: int) -> list[list[int]]:
        """Return input and output tokens of `count` prompts."""
        # a stream of its own: arrivals are drawn from the seed itself
        generator = np.random.default_rng([self.seed, 1])
        sizes = generator.uniform(self.ratio, 1.0, (count, 2))
        wanted = [self.input_tokens, self.output_tokens]
        pairs: list[list[int]] = (
            np.maximum(np.rint(sizes * wanted), 1).astype(int).tolist()
        )
        return pairs


@dataclass(slots=True)
class PromptSource:
    """Makes prompts of which no two begin alike, however often it is asked.

    Points of a sweep that take from one source have disjoint prompts, so no prefix
    cache can serve one with what another has left. The first words after the shared
    part spell a number that is never used twice.

    Args:
        tokenizer: Of the model.
        salt: Two sources of different salt make different prompts: put the run's
            id in it where the server may have lived through an earlier run.
    """

    tokenizer: Tokenizer
    salt: str = "0"
    made: int = 0
    _words: tuple[str, ...] | tuple[int, ...] = field(init=False)
    _key: int = field(init=False)
    overhead: int = field(init=False)
    """Tokens of a prompt beside its words: specials, and the lead."""

    def __post_init__(self) -> None:
        digest = hashlib.sha256(self.salt.encode()).digest()
        self._key = int.from_bytes(digest[:8], "big")
        if isinstance(self.tokenizer, TokenIds):
            self._words = tuple(range(self.tokenizer.first, self.tokenizer.last))
            self.overhead = 0
        else:
            self._words = tuple(self.tokenizer.words)
            self.overhead = self.tokenizer.count(self.tokenizer.lead)

    def take(self, count: int, lengths: Lengths) -> list[Prompt]:
        """Return `count` prompts that this source never made before.

        Raises:
            SpecError: prompts so short cannot be so many and all different.
        """
        generator = np.random.default_rng([self._key, self.made])
        pairs = lengths.draw(count)
        prompts = []
        for serial, (size, output) in enumerate(pairs, self.made):
            shared = self._shared(lengths, serial)
            prompts.append(self._make(serial, size, output, shared, generator))
        self.made += count
        return prompts

    def block(self, size: int, *key: int) -> list[int]:
        """Return `size` word numbers that depend on `key` and the salt only."""
        generator = np.random.default_rng([self._key, 1 << 32, *key])
        return [int(k) for k in generator.integers(len(self._words), size=size)]

    def compose(self, picks: Sequence[int], output_tokens: int) -> Prompt:
        """Return the prompt of these word numbers, special tokens added."""
        words = [self._words[k] for k in picks]
        if isinstance(self.tokenizer, TokenIds):
            ids = tuple(int(word) for word in words)
            return Prompt(
                token_ids=ids, input_tokens=len(ids), output_tokens=output_tokens
            )
        text = self.tokenizer.lead + "".join(str(word) for word in words)
        text = text.rstrip()
        return Prompt(
            text=text,
            input_tokens=len(picks) + self.overhead,
            output_tokens=output_tokens,
        )

    def serial_words(self, serial: int) -> int:
        """Return how many words it takes to spell `serial` and all before it."""
        base, words = len(self._words), 1
        while base**words <= serial:
            words += 1
        return words

    def _shared(self, lengths: Lengths, serial: int) -> list[int]:
        size = lengths.shared_tokens - self.overhead
        if lengths.shared_tokens and size < 1:
            raise SpecError(
                f"{lengths.shared_tokens} shared tokens hold no word beside the "
                f"{self.overhead} that every prompt begins with."
            )
        return self.block(size, serial % lengths.groups) if size > 0 else []

    def _make(
        self,
        serial: int,
        size: int,
        output: int,
        shared: list[int],
        generator: np.random.Generator,
    ) -> Prompt:
        room = size - self.overhead - len(shared)
        digits = self._digits(serial)
        if room < len(digits):
            raise SpecError(
                f"A prompt of {size} tokens has no room to differ from {serial} "
                "others.",
                hint=f"make prompts of {size - room + len(digits)} tokens or more",
            )
        rest = generator.integers(len(self._words), size=room - len(digits)).tolist()
        return self.compose([*shared, *digits, *rest], output)

    def _digits(self, serial: int) -> list[int]:
        base = len(self._words)
        digits = []
        for _ in range(max(self.serial_words(serial), self._width())):
            # rotated by the salt: another salt gives other first words
            digits.append((serial + self._key) % base)
            serial //= base
        return digits

    def _width(self) -> int:
        return 2 if len(self._words) >= 200 else 3
