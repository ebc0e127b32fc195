"""Take secrets out of text before it is kept or shown. Pure but for `secrets_in`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|API_?KEY|_KEY$|_PASS$|_PAT$"
    r"|^AUTH_|COOKIE|_DSN$",
    re.I,
)
IN_URL = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
BEARER = re.compile(r"(?i)(bearer\s+)[\w.~+/=-]{6,}")
MASK = "***"


def secrets_in(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of variables whose names promise a secret, longest first.

    Values under six characters are left out: masking ``1`` would ruin any text.
    """
    found = {value for name, value in environ.items() if NAME.search(name)}
    return tuple(sorted((v for v in found if len(v) >= 6), key=len, reverse=True))


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without the secrets, bearer tokens and passwords in URLs."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return BEARER.sub(rf"\1{MASK}", IN_URL.sub(MASK, text))


def redact_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with secret values masked, names kept."""
    secrets = secrets_in(environ)
    return {
        name: MASK if NAME.search(name) else redact(value, secrets)
        for name, value in sorted(environ.items())
    }
