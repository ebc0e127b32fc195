"""Tokenizer and configuration of a model, from a hub. Weights stay where they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_pd.errors import PdError
from pytest_pd.secret import redact, secrets_in

HUB = "https://huggingface.co"
SMALL = (".json", ".jinja", ".model", ".tiktoken", ".txt", ".py", ".md")
"""Endings of what is fetched; weights end otherwise."""
TIMEOUT_S = 60.0
NO_WEIGHTS = "model.safetensors.index.json"


class FetchError(PdError):
    """Something could not be brought here."""


def wanted(names: list[str]) -> list[str]:
    """Return the files of a repository that are no weights."""
    return [
        name
        for name in names
        if name.endswith(SMALL)
        and not name.endswith(NO_WEIGHTS)
        and ".." not in Path(name).parts
        and not Path(name).is_absolute()
    ]


def fetch_model(model: str, into: Path, say: Callable[[str], None]) -> None:
    """Write the small files of a model into a folder.

    ``HF_ENDPOINT`` names another hub; ``HF_TOKEN`` is sent along and shown nowhere.

    Raises:
        FetchError: the hub does not answer, or refuses.
    """
    import httpx

    hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    token = os.environ.get("HF_TOKEN", "")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(
            headers=headers, timeout=TIMEOUT_S, follow_redirects=True
        ) as client:
            listed: Any = _get(client, f"{hub}/api/models/{model}").json()
            names = wanted([str(one["rfilename"]) for one in listed["siblings"]])
            for name in names:
                place = into / name
                place.parent.mkdir(parents=True, exist_ok=True)
                found = _get(client, f"{hub}/{model}/resolve/main/{name}")
                place.write_bytes(found.content)
                say(f"  {name}")
    except (
        *(httpx.HTTPError, httpx.InvalidURL),
        *(KeyError, ValueError, TypeError),
    ) as error:
        fact = f"{hub} does not give {model!r}: {type(error).__name__}: {error}."
        raise FetchError(
            redact(fact, secrets_in(os.environ)),
            hint="set HF_ENDPOINT for a mirror, HF_TOKEN for a gated model",
        ) from error


def _get(client: Any, url: str) -> Any:
    answer = client.get(url)
    answer.raise_for_status()
    return answer
