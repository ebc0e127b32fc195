"""Take secrets out of text and of environments before they are kept or shown."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_pd.secret import BEARER, IN_URL, MASK, is_secret, redact, secrets_in

__all__ = [
    "BEARER",
    "IN_URL",
    "MASK",
    "redact",
    "redact_environment",
    "secrets_in",
]


def redact_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with secret values masked, names kept."""
    secrets = secrets_in(environ)
    return {
        name: MASK if is_secret(name, value) else redact(value, secrets)
        for name, value in sorted(environ.items())
    }
