"""What every specification model shares: frozen, strict, and quick to refuse."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from pytest_pd.secret import is_secret

MOST = 2**53
"""Readers of JSON keep larger whole numbers inexactly."""
Positive = Annotated[int, Field(ge=1, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Replicas = Annotated[int, Field(ge=1, le=10_000)]
"""Of one pool: a plan lists each, so a slip of the key must not ask for 10**12."""
Nodes = Annotated[int, Field(ge=1, le=20_000)]
NodeGpus = Annotated[int, Field(ge=0, le=256)]
MOST_SECONDS = 10**9
"""Some thirty years; a clock of nanoseconds holds it."""
Seconds = Annotated[float, Field(gt=0, le=MOST_SECONDS)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


def _word(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(  # noqa: TRY004
            f"write {str(value).lower()!r} in quotes: programs disagree on the "
            "spelling of booleans"
        )
    return str(value) if isinstance(value, int | float) else value


def _words(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(  # noqa: TRY004
            "a list of words is wanted: no shell reads them, so text is not split"
        )
    return value


Word = Annotated[str, BeforeValidator(_word)]
"""Text; numbers are taken as they are written, booleans refused."""

Args = Annotated[tuple[Word, ...], BeforeValidator(_words)]


def _no_secrets(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if is_secret(name, value):
            raise ValueError(
                f"{name} looks like a secret, and what stands here gets into plans and "
                "logs: name it in env_from_host, and set it where pytest is started"
            )
    return env


Env = Annotated[dict[str, Word], AfterValidator(_no_secrets)]
"""Environment variables; secrets are refused, for plans are printed and stored."""


class Model(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
