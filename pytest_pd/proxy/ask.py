"""What a generation request asks for, and what each stage is sent. No I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

SESSION_HEADER = "x-session-id"
KEY_CHARACTERS = 256
KEY_TOKENS = 64

PULL_PARAMS: Mapping[str, Any] = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
"""What vLLM's NixlConnector wants on the prefill stage (0.32)."""

# The prefill stage computes the KV of the prompt and one token that nobody reads:
# everything that only shapes the answer is left out. Stop conditions too: a prefill
# that ends by "stop" instead of "length" gives no kv_transfer_params.
_NOT_FOR_PREFILL = frozenset(
    {
        "stream_options", "n", "best_of", "echo", "logprobs", "top_logprobs",
        "prompt_logprobs", "stop", "stop_token_ids", "use_beam_search",
    }
)  # fmt: skip


class Transfer(StrEnum):
    """How KV goes from prefill to decode; none: there is no prefill stage."""

    NONE = "none"
    SHARED_STORAGE = "shared_storage"
    PULL = "pull"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Ask:
    """A generation request: the bytes as they came, and their fields.

    Attributes:
        raw: Body of the client, byte for byte.
        fields: The JSON object, or None where the body is not one.
    """

    raw: bytes
    fields: Mapping[str, Any] | None

    @property
    def streams(self) -> bool:
        """Return whether server-sent events were asked for."""
        return bool(self.fields and self.fields.get("stream"))


def parse_ask(raw: bytes) -> Ask:
    """Return the request; what cannot be read is left for the engine to refuse."""
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        return Ask(raw, None)
    return Ask(raw, fields if isinstance(fields, dict) else None)


def single_stage_reason(ask: Ask, transfer: Transfer) -> str:
    """Return why a decode worker alone must serve this, or ``""`` for two stages.

    Prompt log-probabilities need the logits of every prompt token, so the decode
    worker has to compute the prompt itself. Several prompts in one request come
    back with the KV parameters of one of them, which are wrong for the others.
    """
    if transfer is Transfer.NONE:
        return "no_prefill"
    if ask.fields is None:
        return "unreadable_body"
    if wants_prompt_logprobs(ask.fields):
        return "prompt_logprobs"
    if transfer is Transfer.PULL and has_several_prompts(ask.fields):
        return "several_prompts"
    return ""


def wants_prompt_logprobs(fields: Mapping[str, Any]) -> bool:
    """Return whether log-probabilities of the prompt were asked for."""
    echoes = bool(fields.get("echo")) and fields.get("logprobs") is not None
    return echoes or fields.get("prompt_logprobs") is not None


def has_several_prompts(fields: Mapping[str, Any]) -> bool:
    """Return whether ``prompt`` is a list of more than one text or id list."""
    prompt = fields.get("prompt")
    return isinstance(prompt, list) and len(prompt) > 1 and not _is_ids(prompt)


def prefill_body(
    fields: Mapping[str, Any], transfer: Transfer, *, max_tokens: int = 1
) -> bytes:
    """Return the body of the prefill stage: one token, no stream, no ornaments."""
    body = {k: v for k, v in fields.items() if k not in _NOT_FOR_PREFILL}
    body |= {"max_tokens": max_tokens, "stream": False}
    if "max_completion_tokens" in body:
        body["max_completion_tokens"] = max_tokens
    pulls = transfer is Transfer.PULL or (
        transfer is Transfer.AUTO and not has_several_prompts(fields)
    )
    if pulls:
        body["kv_transfer_params"] = PULL_PARAMS
    if pulls or "min_tokens" in body:
        body["min_tokens"] = 1  # no end-of-text token: it would end by "stop"
    return json.dumps(body, separators=(",", ":")).encode()


def decode_body(ask: Ask, kv_params: Mapping[str, Any] | None) -> bytes:
    """Return the body of the decode stage: the client's bytes, plus `kv_params`."""
    if kv_params is None or ask.fields is None:
        return ask.raw
    text = ask.raw.strip()
    plain = ask.fields and text.startswith(b"{") and text.endswith(b"}")
    if not plain or "kv_transfer_params" in ask.fields:
        body = {**ask.fields, "kv_transfer_params": kv_params}
        return json.dumps(body, separators=(",", ":")).encode()
    # Spliced in, so that a prompt of 100,000 token ids is not written anew.
    added = json.dumps(kv_params, separators=(",", ":")).encode()
    return text[:-1] + b',"kv_transfer_params":' + added + b"}"


def handed_params(answer: bytes) -> Mapping[str, Any] | None:
    """Return the ``kv_transfer_params`` of a prefill answer, None if it has none."""
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    params = found.get("kv_transfer_params") if isinstance(found, dict) else None
    return params if isinstance(params, dict) else None


def routing_key(session: str | None, fields: Mapping[str, Any] | None) -> bytes:
    """Return what consistent hashing goes by: the session, else the prompt's start."""
    if session:
        return b"session:" + session.encode(errors="surrogateescape")
    if not fields:
        return b""
    return b"prompt:" + _prompt_start(fields).encode(errors="surrogatepass")


def _prompt_start(fields: Mapping[str, Any]) -> str:
    prompt = fields.get("prompt")
    if isinstance(prompt, str):
        return prompt[:KEY_CHARACTERS]
    if isinstance(prompt, list):
        first = prompt if _is_ids(prompt) else prompt[0]
        ids = first[:KEY_TOKENS] if isinstance(first, list) else first
        return str(ids)[:KEY_CHARACTERS]
    messages = fields.get("messages")
    if not isinstance(messages, list):
        return ""
    contents = (m.get("content") for m in messages if isinstance(m, dict))
    return "\n".join(str(content) for content in contents)[:KEY_CHARACTERS]


def _is_ids(prompt: list[Any]) -> bool:
    return not prompt or isinstance(prompt[0], int)
