"""One real token through the router: the only proof that the whole path works."""

from __future__ import annotations

from pytest_pd.errors import InfrastructureLost
from pytest_pd.probe.http import Answer, request

ONE_TOKEN_TIMEOUT_S = 60.0
SHOWN = 300


def one_token(url: str, model: str, *, salt: str) -> str | None:
    """Ask for one token once.

    Args:
        salt: Makes the prompt this run's own, so that no cache is warmed for others.

    Returns:
        None when a token came, else why not in a few words.
    """
    body = {
        "model": model,
        "prompt": f"{salt} is ready",
        "max_tokens": 1,
        "temperature": 0,
    }
    try:
        answer = request(
            f"{url}/v1/completions", body=body, timeout_s=ONE_TOKEN_TIMEOUT_S
        )
    except InfrastructureLost as error:
        return error.fact
    return judge(answer)


def judge(answer: Answer) -> str | None:
    """Return None if the answer holds a token, else why it does not."""
    if not answer.ok:
        return f"HTTP {answer.status}: {_shown(answer)}"
    record = answer.json()
    if not isinstance(record, dict) or not record.get("choices"):
        return f"no choices in {_shown(answer)!r}"
    usage = record.get("usage") or {}
    if record["choices"][0].get("text") or usage.get("completion_tokens", 0) >= 1:
        return None
    return "an answer without a token"


def _shown(answer: Answer) -> str:
    text = " ".join(answer.text.split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
