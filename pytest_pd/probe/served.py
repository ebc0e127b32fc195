"""What a server says it serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_pd.probe.http import request


def first_served(url: str) -> Mapping[str, Any]:
    """Return what ``/v1/models`` says of the first model; empty where it lists none.

    Raises:
        InfrastructureLost: it does not answer.
    """
    record = request(f"{url}/v1/models", timeout_s=10.0).json()
    models = record.get("data") if isinstance(record, dict) else None
    first = models[0] if isinstance(models, list) and models else None
    return first if isinstance(first, dict) and first.get("id") else {}
