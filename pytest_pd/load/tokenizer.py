"""Who counts tokens: the model's own tokenizer, in whatever form it can be had.

In this order: a word list that we read ourselves, the `tokenizers` library, `tiktoken`
on local files (Kimi K2 ships no tokenizer.json), the engine's ``/tokenize``, and token
ids, which need no tokenizer at all. Which one it was is recorded with every result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pytest_pd.errors import MeasurementError, SpecError

COMMON_WORDS = """
about above after again along also always another answer area around back because
become been before began being below between book both boy came cannot change
children city close country cut different does down during each earth end enough
even every example face fall family far father few find first follow food form
found four from gave girl give good got great group grow half hand hard have head
hear help her here high him his home house however important into just keep kind
know land large last later leave left letter life light like line list little live
long look made main make man many mark mean men might mile more most mother
mountain move much music must name near need never next night not now number off
often old once one only open order other our out over own page paper part people
place plant play point question quick read real right river room said same saw
school sea second see seem sentence set several should show side since small some
something sometimes soon sound start state still stop story study such sun table
take talk tell than that their them then there these they thing think this those
thought three through time together too took tree try turn two under until upon
use very walk want was watch water way well went were what when where which while
white who why will with without word work world would write year young
""".split()  # noqa: SIM905


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
class EngineTokenizer:
    """The serving engine itself, asked at ``/tokenize``."""

    url: str
    model: str
    words: Sequence[str]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    name: str = "the engine's /tokenize"
    lead: str = ""

    @classmethod
    def ask(
        cls, url: str, model: str, headers: Mapping[str, str] | None = None
    ) -> EngineTokenizer:
        """Return a tokenizer after the engine has answered.

        Raises:
            MeasurementError: it has no such endpoint.
        """
        probe = cls(url, model, (), headers or {})
        plain = probe.count("")
        return cls(
            url,
            model,
            single_token_words(lambda text: probe.count(text) - plain),
            headers or {},
        )

    def count(self, text: str) -> int:
        import httpx

        body = {"model": self.model, "prompt": text}
        url = f"{self.url.rstrip('/')}/tokenize"
        try:
            answer = httpx.post(
                url, json=body, headers=dict(self.headers), timeout=30, trust_env=False
            )
            answer.raise_for_status()
            return int(answer.json()["count"])
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise MeasurementError(
                f"{url} does not count tokens: {error}.",
                hint="give the model's directory, or use token ids",
            ) from error


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


def single_token_words(count: Any) -> list[str]:
    """Return the common words that are one token each, a space in front.

    Args:
        count: Function of a text: its tokens, special tokens left out.

    All words are counted in one go first; only where the sum is wrong is the list
    halved, so that a good tokenizer is asked twice and not 300 times.
    """
    found = _single([f" {word}" for word in COMMON_WORDS], count)
    if len(found) < 16:
        raise MeasurementError(
            f"Only {len(found)} common words are one token each.",
            hint="use token ids for this model",
        )
    return found


def _single(words: list[str], count: Any) -> list[str]:
    if not words or count("".join(words)) == len(words):
        return words
    if len(words) == 1:
        return []
    half = len(words) // 2
    return _single(words[:half], count) + _single(words[half:], count)


def find_tokenizer(
    model_path: Path | None = None,
    *,
    url: str = "",
    model: str = "",
    headers: Mapping[str, str] | None = None,
) -> Tokenizer:
    """Return the best way to count tokens that can be had here.

    Args:
        model_path: Directory of the model; None when it is not on this host.
        url: Base URL of the engine, asked only if the files do not help.
        model: Served name, for the engine.
        headers: Sent along to the engine.

    Raises:
        SpecError: the directory is named and does not exist.
    """
    if model_path is not None:
        if not model_path.is_dir():
            raise SpecError(f"Model directory {str(model_path)!r} does not exist.")
        if (found := _from_files(model_path)) is not None:
            return found
    if url:
        try:
            return EngineTokenizer.ask(url, model, headers)
        except MeasurementError:
            pass
    return TokenIds()


def _from_files(directory: Path) -> Tokenizer | None:
    path = directory / "tokenizer.json"
    if path.is_file():
        if (words := WordLevel.read(path)) is not None:
            return words
        if find_spec("tokenizers"):
            return HuggingFace.read(path)
    ranks = [*directory.glob("*.tiktoken"), *directory.glob("tiktoken.model")]
    if ranks and find_spec("tiktoken"):
        return Tiktoken.read(ranks[0])
    return None
