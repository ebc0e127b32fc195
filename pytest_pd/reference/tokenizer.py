"""The word-level tokenizer of ``tokenizer.json``, without the tokenizers library."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.reference.recall import CHAT_TEMPLATE


class Tokenizer:
    """Words to ids and back; every id is one word.

    Args:
        content: The parsed ``tokenizer.json``.
        settings: The parsed ``tokenizer_config.json``.

    Raises:
        SpecError: the file holds another kind of tokenizer.
    """

    def __init__(self, content: dict[str, Any], settings: dict[str, Any]) -> None:
        kind = content.get("model", {}).get("type")
        if kind != "WordLevel":
            raise SpecError(
                f"The tokenizer is of type {kind!r}; the reference engine reads "
                "'WordLevel' only.",
                hint="serve fixtures/models/tiny, or use a real engine for this model",
            )
        self._ids: dict[str, int] = content["model"]["vocab"]
        self.words = [word for word, _ in sorted(self._ids.items(), key=lambda i: i[1])]
        self._unknown = self._ids[content["model"]["unk_token"]]
        special = [t["content"] for t in content["added_tokens"] if t["special"]]
        self.special_ids = frozenset(self._ids[word] for word in special)
        self._split = re.compile("(" + "|".join(map(re.escape, special)) + r")|\s+")
        self.bos = self._ids[settings["bos_token"]]
        self.eos = self._ids[settings["eos_token"]]
        self._bos_word = str(settings["bos_token"])
        self._template = settings.get("chat_template")

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read the two tokenizer files of a model folder."""
        parts = ("tokenizer.json", "tokenizer_config.json")
        content, settings = (
            json.loads((folder / name).read_text("utf-8")) for name in parts
        )
        return cls(content, settings)

    def encode(self, text: str, *, with_bos: bool = True) -> list[int]:
        """Return the ids of `text`, ``<s>`` in front unless told otherwise."""
        words = (word for word in self._split.split(text) if word)
        ids = [self._ids.get(word, self._unknown) for word in words]
        return [self.bos, *ids] if with_bos else ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """Return the words of `ids` with one space between them."""
        dropped = self.special_ids if skip_special else frozenset()
        return " ".join(self.words[index] for index in ids if index not in dropped)

    def piece(self, index: int) -> str:
        """Text that token `index` adds to an answer; special tokens add none."""
        return "" if index in self.special_ids else f" {self.words[index]}"

    def render_chat(self, messages: Sequence[tuple[str, str]]) -> str:
        """Return the prompt text of (role, content) pairs, ``<s>`` included.

        Raises:
            SpecError: the model has another chat template than ours, or none.
        """
        if self._template != CHAT_TEMPLATE:
            raise SpecError(
                "The reference engine renders the tiny model's chat template only.",
                hint="use /v1/completions with this model",
            )
        return self._bos_word + "".join(f" {content}" for _, content in messages)
