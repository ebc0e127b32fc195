"""Routers: how each turns the workers' addresses into a command."""

from __future__ import annotations

from collections.abc import Callable

from pytest_pd.plan.seam import Router
from pytest_pd.registry import Registry

ROUTERS: Registry[Callable[[], Router]] = Registry(
    "router",
    {
        "dynamo": "pytest_pd.routers.dynamo:DynamoFrontend",
        "proxy": "pytest_pd.routers.proxy:Proxy",
        "vllm_router": "pytest_pd.routers.vllm_router:VllmRouter",
    },
    "pytest_pd.routers",
)
