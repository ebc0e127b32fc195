"""From the JSON body of a request to what the engine needs, or vLLM's refusal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.reference.fields import (
    ApiError,
    Body,
    bad,
    flag,
    real,
    whole,
    wrong_type,
)
from pytest_pd.reference.request import Sampling
from pytest_pd.reference.tokenizer import Tokenizer

_MAX_LOGPROBS = 20
_UNSUPPORTED = {
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "use_beam_search": False,
    "suffix": None,
    "prompt_embeds": None,
    "tools": None,
    "logit_bias": None,
    "response_format": None,
    "structured_outputs": None,
}
"""What would change the answer and is not computed here, with its neutral value."""


@dataclass(frozen=True, slots=True)
class Context:
    """What is needed to judge a request: names, tokenizer and the longest context."""

    names: tuple[str, ...]
    tokenizer: Tokenizer
    max_model_len: int


@dataclass(frozen=True, slots=True)
class Call:
    """One accepted request of either endpoint.

    Attributes:
        model: The name it asked for; answers repeat it.
        chat: Whether it came to the chat endpoint.
        prompts: Token ids, one list per prompt.
        texts: The prompts as text, for `echo`.
        choices: Answers per prompt.
        echo: Repeat the prompt in front of the answer.
        echo_only: ``max_tokens`` is 0: the prompt and its logprobs are the answer.
    """

    model: str
    chat: bool
    prompts: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    sampling: Sampling
    choices: int
    stream: bool
    include_usage: bool
    continuous_usage: bool
    echo: bool
    echo_only: bool
    return_token_ids: bool
    kv_transfer: Mapping[str, Any] | None


def read_completion(body: Body, context: Context) -> Call:
    """Judge a body of ``/v1/completions``.

    Raises:
        ApiError: what vLLM would refuse, or what is not computed here.
    """
    model = _model(body, context)
    echo = flag(body, "echo")
    echo_only = echo and body.get("max_tokens") == 0
    prompts, texts = _prompts(body.get("prompt"), context.tokenizer)
    if not prompts or not all(prompts):
        raise bad(
            "Either prompt or prompt_embeds must be provided and non-empty.", "prompt"
        )
    logprobs = _logprobs(body, "logprobs")
    prompt_logprobs = _logprobs(body, "prompt_logprobs")
    if echo and prompt_logprobs is None:
        prompt_logprobs = logprobs
    asked = 1 if echo_only else whole(body, "max_tokens", least=1)
    return Call(
        model=model,
        chat=False,
        prompts=prompts,
        texts=texts,
        sampling=_sampling(
            body, context, prompts, asked or 16, logprobs, prompt_logprobs
        ),
        echo=echo,
        echo_only=echo_only,
        **_shared(body),
    )


def read_chat(body: Body, context: Context) -> Call:
    """Judge a body of ``/v1/chat/completions``.

    Raises:
        ApiError: what vLLM would refuse, or what is not computed here.
    """
    model = _model(body, context)
    text = _rendered(body, context.tokenizer)
    prompts = (tuple(context.tokenizer.encode(text, with_bos=False)),)
    logprobs = None
    if flag(body, "logprobs"):
        logprobs = _logprobs(body, "top_logprobs") or 0
    asked = whole(body, "max_completion_tokens", least=1)
    asked = asked or whole(body, "max_tokens", least=1)
    room = max(context.max_model_len - len(prompts[0]), 1)
    return Call(
        model=model,
        chat=True,
        prompts=prompts,
        texts=(text,),
        sampling=_sampling(
            body,
            context,
            prompts,
            asked or room,
            logprobs,
            _logprobs(body, "prompt_logprobs"),
        ),
        echo=False,
        echo_only=False,
        **_shared(body),
    )


def read_tokenize(body: Body, context: Context) -> list[int]:
    """Return the tokens of a body of ``/tokenize``.

    Raises:
        ApiError: neither a prompt nor messages.
    """
    _model(body, context)
    with_bos = bool(body.get("add_special_tokens", True))
    if "messages" in body:
        text = _rendered(body, context.tokenizer)
        return context.tokenizer.encode(text, with_bos=False)
    prompt = body.get("prompt")
    if not isinstance(prompt, str):
        raise wrong_type("body.prompt", "string_type", "a valid string", prompt)
    return context.tokenizer.encode(prompt, with_bos=with_bos)


def read_detokenize(body: Body, context: Context) -> str:
    """Return the text of a body of ``/detokenize``.

    Raises:
        ApiError: no list of known token ids.
    """
    _model(body, context)
    tokens = body.get("tokens")
    if not _is_ids(tokens):
        raise wrong_type("body.tokens", "list_type", "a valid list", tokens)
    assert isinstance(tokens, list)
    return context.tokenizer.decode(_known(tokens, context.tokenizer))


def _model(body: Body, context: Context) -> str:
    model = body.get("model") or context.names[0]
    if model not in context.names:
        valid = ", ".join(context.names)
        raise ApiError(
            f"The model `{model}` does not exist. Valid aliases: {valid}.",
            status=404,
            kind="NotFoundError",
            param="model",
        )
    return str(model)


def _shared(body: Body) -> dict[str, Any]:
    """Return what both endpoints read in the same way."""
    for name, neutral in _UNSUPPORTED.items():
        if body.get(name) not in (None, neutral, [], {}):
            raise bad(f"{name} is not supported by the reference engine.", name)
    options = body.get("stream_options") or {}
    stream = flag(body, "stream")
    if options and not stream:
        raise bad(
            "Stream options can only be defined when `stream=True`.", "stream_options"
        )
    return {
        "choices": whole(body, "n", least=1) or 1,
        "stream": stream,
        "include_usage": bool(options.get("include_usage")),
        "continuous_usage": bool(options.get("continuous_usage_stats")),
        "return_token_ids": flag(body, "return_token_ids"),
        "kv_transfer": body.get("kv_transfer_params"),
    }


def _prompts(
    prompt: Any, tokenizer: Tokenizer
) -> tuple[tuple[tuple[int, ...], ...], tuple[str, ...]]:
    """Return (ids, texts) of a text, a list of ids, or a list of either."""
    if prompt is None:
        return (), ()
    entries = [prompt] if isinstance(prompt, str) or _is_ids(prompt) else prompt
    if not isinstance(entries, list):
        raise wrong_type("body.prompt", "list_type", "a valid list", prompt)
    ids, texts = [], []
    for entry in entries:
        if isinstance(entry, str):
            ids.append(tuple(tokenizer.encode(entry)) if entry else ())
            texts.append(entry)
        elif _is_ids(entry):
            ids.append(_known(entry, tokenizer))
            texts.append(tokenizer.decode(entry, skip_special=True))
        else:
            raise wrong_type("body.prompt", "list_type", "a valid list", entry)
    return tuple(ids), tuple(texts)


def _is_ids(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    )


def _known(ids: Sequence[int], tokenizer: Tokenizer) -> tuple[int, ...]:
    for index in ids:
        if not 0 <= index < len(tokenizer.words):
            raise bad(f"Token id {index} is out of vocabulary", "prompt")
    return tuple(ids)


def _rendered(body: Body, tokenizer: Tokenizer) -> str:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise wrong_type("body.messages", "list_type", "a valid list", messages)
    pairs = []
    for message in messages:
        if not isinstance(message, dict) or "role" not in message:
            raise wrong_type("body.messages", "dict_type", "a valid message", message)
        pairs.append((str(message["role"]), _content(message.get("content"))))
    try:
        return tokenizer.render_chat(pairs)
    except SpecError as exc:
        raise bad(str(exc), "messages") from exc


def _content(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content)
    return str(content or "")


def _sampling(
    body: Body,
    context: Context,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> Sampling:
    _check_room(prompts, max_tokens, context.max_model_len, asked="max_tokens" in body)
    longest = max(len(prompt) for prompt in prompts)
    temperature = real(body, "temperature", 1.0, least=0.0)
    stop = body.get("stop") or ()
    stop_ids = body.get("stop_token_ids") or ()
    ends = () if flag(body, "ignore_eos") else (context.tokenizer.eos,)
    return Sampling(
        temperature=temperature,
        top_p=real(body, "top_p", 1.0, least=1e-9, most=1.0),
        top_k=max(whole(body, "top_k", least=-1) or 0, 0),
        min_p=real(body, "min_p", 0.0, least=0.0, most=1.0),
        seed=whole(body, "seed", least=-(2**63)),
        max_tokens=min(max_tokens, context.max_model_len - longest),
        min_tokens=whole(body, "min_tokens", least=0) or 0,
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        stop=(stop,) if isinstance(stop, str) else tuple(map(str, stop)),
        keep_stop=flag(body, "include_stop_str_in_output"),
        stop_ids=frozenset((*stop_ids, *ends)),
    )


def _check_room(
    prompts: Sequence[Sequence[int]], max_tokens: int, room: int, *, asked: bool
) -> None:
    for prompt in prompts:
        size = len(prompt)
        head = f"This model's maximum context length is {room} tokens. However, "
        if size >= room:
            raise bad(
                f"{head}your prompt contains {size} input tokens, which exceeds this "
                "limit even without any output tokens. Please reduce the length of "
                "the input prompt.",
                "input_tokens",
                size,
            )
        if asked and size + max_tokens > room:
            raise bad(
                f"{head}you requested {max_tokens} output tokens and your prompt "
                f"contains at least {size} input tokens, for a total of at least "
                f"{size + max_tokens} tokens. Please reduce the length of the input "
                "prompt or the number of requested output tokens.",
                "input_tokens",
                size,
            )


def _logprobs(body: Body, name: str) -> int | None:
    count = whole(body, name, least=0)
    if count is not None and count > _MAX_LOGPROBS:
        raise bad(
            f"Requested sample logprobs of {count}, which is greater than max "
            f"allowed: {_MAX_LOGPROBS}",
            name,
            count,
        )
    return count
