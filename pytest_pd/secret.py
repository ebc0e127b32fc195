"""What is secret, and text without it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_NAME = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|_KEY$|_PASS$"
    r"|_PAT$|^AUTH_|COOKIE|_DSN$",
    re.I,
)
_PLACE = re.compile(r"_(PATH|FILE|DIR)$", re.I)
_SETTING = re.compile(r"[\d.]{,5}|true|false|yes|no|on|off", re.I)
_MANY = re.compile(r"TOKENS", re.I)
IN_URL = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
IN_QUERY = re.compile(
    r"(?i)([?&](?:access_?token|token|api_?key|key|secret|password|signature|sig)=)"
    r"[^&\s\"'<>]{4,}"
)
BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]{6,}")
MASK = "***"
SHORTEST = 6
"""Shorter values are left alone: masking ``1`` would ruin any text."""


def is_secret(name: str, value: str) -> bool:
    """Whether a variable holds a secret: its name promises one, its value may be one.

    A switch, a small number and a number of tokens are settings; where a secret lies
    is none itself.
    """
    if not _NAME.search(name) or _PLACE.search(name) or _SETTING.fullmatch(value):
        return False
    return not (_MANY.search(name) and value.isdigit())


def secrets_in(
    environ: Mapping[str, str], *, also: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the values of variables that hold a secret, longest first.

    Passwords inside of URLs are secret in whatever variable they stand.

    Args:
        also: Further names whose values are secret whatever they are called.
    """
    named = frozenset(also)
    found = {v for k, v in environ.items() if is_secret(k, v) or k in named}
    for value in environ.values():
        found |= {pair.partition(":")[2] for pair in IN_URL.findall(value)}
    return tuple(sorted((v for v in found if len(v) >= SHORTEST), key=len)[::-1])


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without the secrets, bearer tokens and passwords in URLs."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    text = BEARER.sub(rf"\1{MASK}", IN_URL.sub(MASK, text))
    return IN_QUERY.sub(rf"\1{MASK}", text)
