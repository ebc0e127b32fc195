"""Hooks for other plugins and for a project's conftest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_pd.plan.model import DeploymentPlan
    from pytest_pd.provision.deployment import Deployment


@pytest.hookspec(firstresult=True)
def pytest_pd_modify_plan(
    config: pytest.Config, plan: DeploymentPlan
) -> DeploymentPlan | None:
    """Return another plan to start instead of `plan`, or None to keep it."""


@pytest.hookspec
def pytest_pd_deployment_ready(config: pytest.Config, deployment: Deployment) -> None:
    """Called once per topology, when one real token has come through the router."""


@pytest.hookspec
def pytest_pd_deployment_failed(
    config: pytest.Config, plan: DeploymentPlan, error: Exception
) -> None:
    """Called once per topology that could not be brought up."""


@pytest.hookspec
def pytest_pd_provenance(
    config: pytest.Config, deployment: Deployment, info: dict[str, Any]
) -> None:
    """Add plain JSON values to `info`, which is stored beside every result."""
