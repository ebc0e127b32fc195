"""Engines: how each turns a placed worker into a command."""

from __future__ import annotations

from collections.abc import Callable

from pytest_pd.plan.seam import Engine
from pytest_pd.registry import Registry

ENGINES: Registry[Callable[[], Engine]] = Registry(
    "engine",
    {
        "dynamo": "pytest_pd.engines.dynamo:Dynamo",
        "dynamo@rehearsal": "pytest_pd.engines.rehearsed:RehearsedDynamo",
        "reference": "pytest_pd.engines.reference:Reference",
        "reference@rehearsal": "pytest_pd.engines.reference:Reference",
        "vllm": "pytest_pd.engines.vllm:Vllm",
        "vllm@rehearsal": "pytest_pd.engines.rehearsed:RehearsedVllm",
    },
    "pytest_pd.engines",
)
