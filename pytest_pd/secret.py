"""What is secret, and text without it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

_NAME = re.compile(
    r"TOKEN(?!IZ)|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|_KEY$"
    r"|(?<!BY)(?<!COM)PASS$|_PWD$|_PAT$|^AUTH_|_AUTH(_CONFIG|_HEADER)?$|WEBHOOK"
    r"|COOKIE|_DSN$",
    re.I,
)
_PLACE = re.compile(r"_(PATH|FILE|DIR)$", re.I)
_SETTING = re.compile(r"[\d.]{,5}|true|false|yes|no|on|off", re.I)
_MANY = re.compile(r"TOKENS", re.I)
_TOKEN = (
    r"(?:gh[a-z]|github_pat|glpat|hf|sk|npm|pypi|xox[a-z])[-_][\w~+=%.-]{4,}"
    r"|(?=[A-Za-z_~+=%-]*\d)[\w~+=%-]{20,}"
)
"""What is no name of a user: a token by its beginning, or by its length."""
IN_URL = re.compile(
    # host, port and data-parallel rank of a worker: a router's own way to name it
    r"(?<=://)(?!(?:\[[\da-fA-F:.]+\]|[^/\s:@\[]+):\d{1,5}@\d{1,5}(?![\w:@-]|\.\w))(?:"
    r"[^/\s:@]*:[^/\s@]+(?:@[^/\s@\"'<>,;&?#\\]+)*"
    # a password with a slash in it; what begins like a port and a path is none
    r"|[^/\s:@\[]*:(?!\d{1,5}[/?#,;])(?:(?!://)[^\s@\"'<>\\])+"
    r"|(?:(?<=http://)|(?<=https://))[^/\s:@\"'<>,;&?#\\]+"
    rf"|{_TOKEN}"
    r")(?=@)"
)
"""What stands before the ``@`` of a URL: a password, with a user or without, or a
token. A user alone is one for http only, where nobody writes it for another reason."""
IN_QUERY = re.compile(
    r"(?i)([?&](?:access_?token|token|api_?key|key|secret|password|signature|sig)=)"
    r"[^&\s\"'<>\\]{4,}"
)
BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]{6,}")
MASK = "***"
SHORTEST = 6
"""Shorter values are left alone: masking ``1`` would ruin any text."""
SHORTEST_PIECE = 8
"""Characters of a secret that are masked where text was cut beside them."""
_CUT = re.compile(r"\.{3,}|…")


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

    Passwords and tokens inside of URLs are secret in whatever variable they stand.
    So is each line of a secret: many programs print one line at a time.

    Args:
        also: Further names whose values are secret whatever they are called.
    """
    named = frozenset(also)
    found = {v for k, v in environ.items() if is_secret(k, v) or k in named}
    for value in environ.values():
        for part in IN_URL.findall(value):
            user, _, password = part.partition(":")
            found |= {password, unquote(password)}
            found |= {user} if re.fullmatch(_TOKEN, user) else set()
    found |= {line.strip() for value in found for line in value.splitlines()}
    return tuple(sorted((v for v in found if len(v) >= SHORTEST), key=len)[::-1])


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without the secrets, bearer tokens and passwords in URLs.

    A secret is found as it is and as JSON and ``repr`` write it, and a piece of one
    where text was cut beside it (``abc...``).
    """
    forms = _forms(tuple(secrets))
    for form in forms:
        text = text.replace(form, MASK)
    text = _without_pieces(text, forms)
    text = BEARER.sub(rf"\1{MASK}", text)
    if "@" in text:  # the slowest of them
        text = IN_URL.sub(MASK, text)
    return IN_QUERY.sub(rf"\1{MASK}", text)


def redact_all(data: Any, secrets: Iterable[str]) -> Any:
    """Return plain data (mappings, lists, tuples) with every text in it redacted."""
    known = tuple(secrets)
    if isinstance(data, str):
        return redact(data, known)
    if isinstance(data, Mapping):
        return {redact_all(k, known): redact_all(v, known) for k, v in data.items()}
    if isinstance(data, list | tuple):
        found = [redact_all(each, known) for each in data]
        return found if isinstance(data, list) else tuple(found)
    return data


@lru_cache(maxsize=32)
def _forms(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Return every way in which the secrets are written, longest first."""
    found = {form for secret in secrets if secret for form in _written(secret)}
    return tuple(sorted(found, key=lambda form: (-len(form), form)))


def _written(secret: str) -> Iterator[str]:
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield repr(f"'\"{secret}")[4:-1]  # within a text that has both quotes
    yield ascii(secret)[1:-1]


def _without_pieces(text: str, forms: tuple[str, ...]) -> str:
    """Mask a beginning of a secret before a cut, and an end of one behind it."""
    size = SHORTEST_PIECE
    long = [form for form in forms if len(form) > size]
    heads = [form for form in long if form[:size] in text]
    tails = [form[::-1] for form in long if form[-size:] in text]
    spans = []
    for cut in _CUT.finditer(text) if heads or tails else ():
        at, end = cut.span()
        for form in heads:
            spans.append((at - _begun(text[max(0, at - len(form)) : at], form), at))
        for form in tails:
            spans.append((end, end + _begun(text[end : end + len(form)][::-1], form)))
    parts, done = [], 0
    for start, end in sorted(spans):
        if end > max(start, done):
            parts += [text[done:start], MASK]
            done = end
    return "".join([*parts, text[done:]])


def _begun(text: str, secret: str) -> int:
    """Return how many characters of a secret's beginning `text` ends with, or 0."""
    head = secret[:SHORTEST_PIECE]
    at = text.find(head)
    while at >= 0 and not secret.startswith(text[at:]):
        at = text.find(head, at + 1)
    return len(text) - at if at >= 0 else 0
