"""Prompts of exact lengths whose answers are known, where the model allows it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.reference.prompts import make_recall

RECALL_MODELS = ("tiny", "tiny-recall", "recall")
WORDS = ("river", "stone", "window", "garden", "letter", "paper", "silver", "bridge")


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, its length, and what a right model must answer.

    Attributes:
        tokens: Exact prompt length in tokens; 0 when only the engine can tell.
        expected: The greedy answer's text; None when nobody knows it before.
    """

    text: str
    tokens: int
    expected: str | None


@dataclass(frozen=True, slots=True)
class PromptBook:
    """Makes prompts that no other test of the run makes.

    Attributes:
        model_path: Folder of the served model.
        salt: Differs per run and per test, so that no two share a prompt.
    """

    model_path: str
    salt: str

    @property
    def knows_answers(self) -> bool:
        """True for the recall model, which answers look-ups exactly."""
        return Path(self.model_path).name in RECALL_MODELS

    def make(self, key: object, *, tokens: int, answer_tokens: int = 16) -> Question:
        """Return the prompt named `key`, about or exactly `tokens` long."""
        if not self.knows_answers:
            return Question(self._prose(key, tokens), 0, None)
        made = make_recall(
            f"{self.salt}:{key}", chain=answer_tokens, length_tokens=tokens
        )
        return Question(made.text, made.prompt_tokens, made.expected_text)

    def _prose(self, key: object, tokens: int) -> str:
        draw = random.Random(f"{self.salt}:{key}")
        unique = f"{draw.getrandbits(64):016x}"
        return " ".join([unique, *draw.choices(WORDS, k=max(1, tokens - 12))])
