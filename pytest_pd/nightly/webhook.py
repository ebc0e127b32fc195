"""Tells a web address how the night was. What goes wrong there fails no night."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TIMEOUT_S = 10.0


def post(url: str, body: Mapping[str, Any]) -> str:
    """Post `body` as JSON; return what went wrong, without the address, or ``""``.

    The address is a secret: whoever has it can write there.
    """
    import httpx

    try:
        answer = httpx.post(url, json=dict(body), timeout=TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return f"the webhook was not told: {type(error).__name__}"
    if answer.is_success:
        return ""
    return f"the webhook answered {answer.status_code}"
