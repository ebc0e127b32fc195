"""Counting tokens by asking the server: at ``/tokenize``, or in its answers' usage."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pytest_pd.errors import MeasurementError
from pytest_pd.load.words import COMMON_WORDS, single_token_words

LAST_IDS = (9000, 4500, 2200, 1100, 500, 250, 120)
"""Token ids that a vocabulary may reach, largest first."""
Verify = ssl.SSLContext | bool
"""Whom https trusts, as httpx takes it."""


@dataclass(frozen=True, slots=True)
class EngineTokenizer:
    """The serving engine itself, asked at ``/tokenize``."""

    url: str
    model: str
    words: Sequence[str]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: Verify = field(default=True, repr=False)
    name: str = "the engine's /tokenize"
    lead: str = ""

    @classmethod
    def ask(
        cls,
        url: str,
        model: str,
        headers: Mapping[str, str] | None = None,
        *,
        verify: Verify = True,
    ) -> EngineTokenizer:
        """Return a tokenizer after the engine has answered.

        Raises:
            MeasurementError: it has no such endpoint.
        """
        probe = cls(url, model, (), headers or {}, verify)
        plain = probe.count("")
        words = single_token_words(lambda text: probe.count(text) - plain)
        answer = probe.ask_for("".join(words))
        if len(set(answer.get("tokens") or range(plain + 2))) < plain + 2:
            raise MeasurementError(
                "The engine knows none of the common words.",
                hint="give the model's directory, or use token ids",
            )
        return replace(probe, words=words)

    def count(self, text: str) -> int:
        return int(self.ask_for(text)["count"])

    def ask_for(self, text: str) -> dict[str, Any]:
        """Return what the engine makes of `text`: at least its ``count``.

        Raises:
            MeasurementError: it does not say.
        """
        import httpx

        body = {"model": self.model, "prompt": text}
        url = f"{self.url.rstrip('/')}/tokenize"
        try:
            answer = httpx.post(
                url,
                json=body,
                headers=dict(self.headers),
                timeout=30,
                trust_env=False,
                verify=self.verify,
            )
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            int(found["count"])
        except (httpx.HTTPError, TypeError, ValueError, KeyError) as error:
            raise MeasurementError(
                f"{url} does not count tokens: {error}.",
                hint="give the model's directory, or use token ids",
            ) from error
        return found


@dataclass(frozen=True, slots=True)
class UsageTokenizer:
    """A server that says how long a prompt was, but only when it answers it.

    Attributes:
        is_chat: Ask as a chat, whose template adds tokens of its own.
    """

    url: str
    model: str
    words: Sequence[str]
    is_chat: bool
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: Verify = field(default=True, repr=False)
    name: str = "usage in the server's answers"
    lead: str = ""

    @classmethod
    def ask(
        cls,
        url: str,
        model: str,
        headers: Mapping[str, str] | None = None,
        *,
        is_chat: bool,
        verify: Verify = True,
    ) -> UsageTokenizer:
        """Return a tokenizer after the server has answered some short requests.

        Raises:
            MeasurementError: it does not answer, or its answers hold no usage.
        """
        probe = cls(url, model, (), is_chat, headers or {}, verify)
        plain = probe.count("")
        words = single_token_words(lambda text: probe.count(text) - plain)
        return replace(probe, words=words)

    def count(self, text: str) -> int:
        if not text:  # which not every server takes
            return self.count(f" {COMMON_WORDS[0]}") - 1
        answer = complete(
            self.url,
            self.model,
            self.headers,
            text,
            is_chat=self.is_chat,
            verify=self.verify,
        )
        try:
            return int(answer["usage"]["prompt_tokens"])
        except (TypeError, KeyError, ValueError) as error:
            raise MeasurementError(
                f"{self.url} does not say how long a prompt was.",
                hint="give the model's directory",
            ) from error


def complete(
    url: str,
    model: str,
    headers: Mapping[str, str],
    prompt: str | list[int],
    *,
    is_chat: bool = False,
    verify: Verify = True,
) -> dict[str, Any]:
    """Return the whole answer to a prompt, one token long.

    Raises:
        MeasurementError: there is none.
    """
    import httpx

    body: dict[str, Any] = {"model": model, "temperature": 0}
    if is_chat:
        body["messages"] = [{"role": "user", "content": prompt}]
        body["max_completion_tokens"] = 1
    else:
        body |= {"prompt": prompt, "max_tokens": 1}
    path = f"{url.rstrip('/')}/v1/{'chat/' if is_chat else ''}completions"
    try:
        answer = httpx.post(
            path,
            json=body,
            headers=dict(headers),
            timeout=60,
            trust_env=False,
            verify=verify,
        )
        answer.raise_for_status()
        found = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise MeasurementError(
            f"{path} does not answer: {error}.", hint="is the server up?"
        ) from error
    return found if isinstance(found, dict) else {}


def last_token_id(
    url: str, model: str, headers: Mapping[str, str], *, verify: Verify = True
) -> int | None:
    """Return an id that the server's vocabulary reaches; None if it takes none.

    The size of a vocabulary is in no answer, so a short prompt of one id is sent. It
    is of several tokens: vLLM 0.32 with KV in files dies of a prompt of one.
    """
    for last in LAST_IDS:
        try:
            complete(url, model, headers, [last] * 8, verify=verify)
        except MeasurementError:
            continue
        return last
    return None
