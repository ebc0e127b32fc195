"""Who counts tokens: the model's own tokenizer, in whatever form it can be had.

In this order: a word list that we read ourselves, the `tokenizers` library, `tiktoken`
on local files (Kimi K2 ships no tokenizer.json), the engine's ``/tokenize``, and token
ids, which need no tokenizer at all; chats are no lists of ids, so there the usage in
the server's answers counts. Which one it was is recorded with every result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.load.asked import (
    EngineTokenizer,
    UsageTokenizer,
    Verify,
    last_token_id,
)
from pytest_pd.load.words import single_token_words


class Tokenizer(Protocol):
    """Knows words of one token each, which do not merge when put in a row."""

    @property
    def name(self) -> str:
        """What it is, for the record."""

    @property
    def words(self) -> Sequence[str]:
        """Pieces of text of one token each; concatenated they stay so."""

    @property
    def lead(self) -> str:
        """Text in front of every prompt; empty where none is needed."""

    def count(self, text: str) -> int:
        """Return the tokens of `text` as a prompt, special tokens included."""


@dataclass(frozen=True, slots=True)
class WordLevel:
    """A tokenizer.json that is a list of words split at white space.

    Attributes:
        vocabulary: Word to id.
        specials: Tokens that the post-processor adds to a prompt.
        lead: The project's recall model wants a comma in front.
    """

    vocabulary: Mapping[str, int]
    specials: int
    lead: str
    name: str = "word list of tokenizer.json"
    words: Sequence[str] = ()

    @classmethod
    def read(cls, path: Path) -> WordLevel | None:
        """Return the tokenizer of `path`, None if it is of another kind."""
        found = json.loads(path.read_text())
        model, splitter = found.get("model") or {}, found.get("pre_tokenizer") or {}
        if (model.get("type"), splitter.get("type")) != (
            "WordLevel",
            "WhitespaceSplit",
        ):
            return None
        words = sorted(w for w in model["vocab"] if w.isalnum())
        return cls(
            vocabulary=model["vocab"],
            specials=_added_tokens(found.get("post_processor") or {}),
            lead=", " if "," in model["vocab"] else "",
            words=[f"{word} " for word in words],
        )

    def count(self, text: str) -> int:
        return self.specials + len(text.split())


def _added_tokens(processor: Mapping[str, Any]) -> int:
    template = processor.get("single") or []
    return sum("SpecialToken" in entry for entry in template)


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """tokenizer.json, read by the `tokenizers` library."""

    encoder: Any
    words: Sequence[str]
    name: str = "tokenizers library"
    lead: str = ""

    @classmethod
    def read(cls, path: Path) -> HuggingFace:
        from tokenizers import (  # type: ignore[import-not-found,unused-ignore]
            Tokenizer as Encoder,
        )

        encoder = Encoder.from_file(str(path))
        return cls(encoder, single_token_words(lambda t: _ids(encoder, t)))

    def count(self, text: str) -> int:
        return len(self.encoder.encode(text).ids)


def _ids(encoder: Any, text: str) -> int:
    return len(encoder.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True, slots=True)
class Tiktoken:
    """A local ``*.tiktoken`` or ``tiktoken.model`` file, read by `tiktoken`.

    Attributes:
        specials: Tokens that the server adds to a prompt: none for Kimi K2.
    """

    encoder: Any
    words: Sequence[str]
    name: str = "tiktoken, local file"
    lead: str = ""
    specials: int = 0

    @classmethod
    def read(cls, path: Path) -> Tiktoken:
        import tiktoken  # type: ignore[import-not-found,unused-ignore]
        from tiktoken.load import (  # type: ignore[import-not-found,unused-ignore]
            load_tiktoken_bpe,
        )

        encoder = tiktoken.Encoding(
            name=path.stem,
            # words of letters in front of which at most one space stands: all
            # that our prompts hold, and cut alike by every published pattern
            pat_str=r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+|[^\s\p{L}\p{N}]+",
            mergeable_ranks=load_tiktoken_bpe(str(path)),
            special_tokens={},
        )
        return cls(encoder, single_token_words(lambda t: len(encoder.encode(t))))

    def count(self, text: str) -> int:
        return self.specials + len(self.encoder.encode(text))


@dataclass(frozen=True, slots=True)
class TokenIds:
    """No tokenizer: prompts are lists of token ids.

    Attributes:
        first, last: Range of ids to draw from, special tokens left out.
    """

    first: int = 1000
    last: int = 9000
    name: str = "token ids"
    words: Sequence[str] = ()
    lead: str = ""

    def count(self, text: str) -> int:
        raise MeasurementError("Token ids have no text to count.")


def find_tokenizer(
    model_path: Path | None = None,
    *,
    url: str = "",
    model: str = "",
    headers: Mapping[str, str] | None = None,
    is_chat: bool = False,
    needs_text: bool = False,
    verify: Verify = True,
) -> Tokenizer:
    """Return the best way to count tokens that can be had here.

    Args:
        model_path: Directory of the model; None when it is not on this host.
        url: Base URL of the engine, asked only if the files do not help.
        model: Served name, for the engine.
        headers: Sent along to the engine.
        is_chat: Prompts will be messages, which token ids cannot be.
        needs_text: Prompts have to be text for another reason.
        verify: Whom https trusts when the engine is asked.

    Raises:
        SpecError: the directory is named and does not exist, or its tokenizer.json
            is damaged.
        MeasurementError: text is needed and nobody counts its tokens.
    """
    if model_path is not None:
        if not model_path.is_dir():
            raise SpecError(f"Model directory {str(model_path)!r} does not exist.")
        if (found := _from_files(model_path)) is not None:
            return found
    if url:
        try:
            return EngineTokenizer.ask(url, model, headers, verify=verify)
        except MeasurementError:
            pass
    if is_chat or needs_text:
        return UsageTokenizer.ask(url, model, headers, is_chat=is_chat, verify=verify)
    last = last_token_id(url, model, headers or {}, verify=verify) if url else None
    return TokenIds(last // 9, last) if last else TokenIds()


def _from_files(directory: Path) -> Tokenizer | None:
    path = directory / "tokenizer.json"
    if path.is_file():
        try:
            if (words := WordLevel.read(path)) is not None:
                return words
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise SpecError(
                f"{str(path)!r} is no tokenizer: {error!r}.",
                hint="bring the model's files here again",
            ) from error
        if find_spec("tokenizers"):
            return HuggingFace.read(path)
    ranks = [*directory.glob("*.tiktoken"), *directory.glob("tiktoken.model")]
    if ranks and find_spec("tiktoken"):
        return Tiktoken.read(ranks[0])
    return None
