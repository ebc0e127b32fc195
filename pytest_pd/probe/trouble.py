"""Names for what goes wrong in P/D serving although every process is well."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_pd.plan.model import Role
from pytest_pd.probe.window import Window

REFUSED = re.compile(r"(?:HTTP/1\.1\"?|\bstatus[ =:]+|->) ?404\b")


def named_trouble(window: Window, *, sent: int, prompt_tokens: int) -> tuple[str, ...]:
    """Return known troubles that fit what the services did; empty when none does.

    Args:
        sent: Requests that the client sent in the window.
        prompt_tokens: Tokens of all their prompts, 0 when not known.
    """
    return (
        *_bypass(window, sent),
        *_missing_route(window),
        *_old_kv(window, prompt_tokens),
    )


def _bypass(window: Window, sent: int) -> Iterator[str]:
    prefill = window.total(Role.PREFILL, "requests")
    decode = window.total(Role.DECODE, "requests")
    if sent and prefill and not decode and decode is not None:
        yield (
            f"bypass: prefill served {prefill:g} requests and decode none. Requests go "
            "past the router: send them to its port, not to prefill's."
        )


def _missing_route(window: Window) -> Iterator[str]:
    for endpoint in window.endpoints:
        if endpoint.role is not Role.ROUTER:
            continue
        refused = len(REFUSED.findall(window.delta.new_log(endpoint.service)))
        if refused:
            yield (
                f"404: {endpoint.service} logged {refused} answers 404. It serves not "
                "all of /v1/completions and /v1/chat/completions, or the model has "
                "another name there: look at its /v1/models."
            )


def _old_kv(window: Window, prompt_tokens: int) -> Iterator[str]:
    hits = window.total(Role.PREFILL, "external_hits") or 0
    if hits:
        yield (
            f"old KV: prefill itself found {hits:g} tokens in the KV storage. They are "
            "an earlier run's: clear kv_transfer.path before the run."
        )
    computed = window.total(Role.PREFILL, "computed_tokens")
    handed = window.total(Role.DECODE, "external_tokens")
    if not hits and prompt_tokens and computed == 0 and handed:
        yield (
            f"old KV: decode loaded {handed:g} tokens although prefill computed none. "
            "They are an earlier run's: clear kv_transfer.path before the run."
        )
