"""Ask an OpenAI-compatible server and keep all that it said, streamed or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered to one request.

    Attributes:
        text: All text of the only choice.
        events: Decoded SSE events in order; empty when not streamed.
        done: The stream ended with ``[DONE]``; True when not streamed.
        usage: Token counts as the server reports them; empty when it does not.
        error: The error object of a 4xx/5xx body or of an SSE error event.
        logprobs: Log-probability per generated token, where asked for.
        kv_transfer_params: What decode finds the KV by, from a prefill worker.
    """

    status: int
    headers: Mapping[str, str]
    text: str = ""
    id: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    done: bool = True
    error: Mapping[str, Any] | None = None
    logprobs: tuple[float, ...] = ()
    kv_transfer_params: Mapping[str, Any] | None = None

    @property
    def words(self) -> list[str]:
        """Text split at white space: tokens of a word-level model."""
        return self.text.split()

    @property
    def ok(self) -> bool:
        return self.status == 200 and self.error is None and self.done


def ask(
    client: httpx.Client,
    body: Mapping[str, Any],
    *,
    path: str = COMPLETIONS,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request; a stream is read to the end of the HTTP body.

    Raises:
        httpx.TransportError: no answer, or the connection broke.
    """
    if not body.get("stream"):
        return _whole(client.post(path, json=dict(body), headers=headers))
    request = client.build_request("POST", path, json=dict(body), headers=headers)
    response = client.send(request, stream=True)
    try:
        if response.status_code != 200:
            response.read()
            return _whole(response)
        lines = [line for line in response.iter_lines() if line.startswith("data:")]
    finally:
        response.close()
    return from_events(
        response.status_code,
        response.headers,
        [line.removeprefix("data:").strip() for line in lines],
    )


def _whole(response: httpx.Response) -> Answer:
    try:
        data = response.json()
    except ValueError:
        data = {"error": {"message": response.text, "type": "not JSON"}}
    if response.status_code != 200 or not isinstance(data, dict):
        error = data.get("error", data) if isinstance(data, dict) else {"message": data}
        error = error if isinstance(error, dict) else {"message": str(error)}
        return Answer(response.status_code, response.headers, error=error)
    return Answer(
        response.status_code,
        response.headers,
        text=text_of(data),
        id=str(data.get("id", "")),
        finish_reason=_reason(data),
        usage=data.get("usage") or {},
        logprobs=_logprobs(data),
        kv_transfer_params=data.get("kv_transfer_params"),
    )


def from_events(status: int, headers: Mapping[str, str], payloads: list[str]) -> Answer:
    """Put the answer together from the payloads of ``data:`` lines. Pure.

    What is no JSON object is an error of the stream, and no event.
    """
    read = [_event(text) for text in payloads if text != "[DONE]"]
    events = [event for event in read if event is not None]
    reasons = [reason for event in events if (reason := _reason(event))]
    usages = [event["usage"] for event in events if event.get("usage")]
    errors = [_error(event["error"]) for event in events if event.get("error")]
    if len(events) < len(read):
        errors.append({"message": "an event is no JSON object", "type": "not JSON"})
    return Answer(
        status,
        headers,
        text="".join(map(text_of, events)),
        id=str(events[0].get("id", "")) if events else "",
        finish_reason=reasons[-1] if reasons else None,
        usage=usages[-1] if usages and isinstance(usages[-1], dict) else {},
        events=tuple(events),
        done=bool(payloads) and payloads[-1] == "[DONE]",
        error=errors[0] if errors else None,
        logprobs=tuple(p for event in events for p in _logprobs(event)),
    )


def _event(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _error(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {"message": str(found)}


def _choice(data: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def text_of(data: Mapping[str, Any]) -> str:
    """Return the text of an answer or of one event of a stream; empty for none.

    What a model thinks before it answers comes first; vLLM has called it by two names,
    and says it under both in some releases.
    """
    choice = _choice(data)
    part = choice.get("message") or choice.get("delta")
    if not isinstance(part, dict):
        return str(choice.get("text") or "")
    thought = part.get("reasoning") or part.get("reasoning_content") or ""
    return f"{thought}{part.get('content') or ''}"


def _reason(data: Mapping[str, Any]) -> str | None:
    return _choice(data).get("finish_reason")


def _logprobs(data: Mapping[str, Any]) -> tuple[float, ...]:
    found = _choice(data).get("logprobs")
    if not isinstance(found, dict):
        return ()
    plain = found.get("token_logprobs")
    if isinstance(plain, list):
        return tuple(p for p in plain if isinstance(p, int | float))
    content = found.get("content")
    items = content if isinstance(content, list) else []
    return tuple(i["logprob"] for i in items if isinstance(i, dict) and "logprob" in i)
