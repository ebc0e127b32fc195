"""What a result was made with: versions, commit, plan, mode. Reads, never writes."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.report.redact import redact_environment

PACKAGES = ("pytest-pd", "pytest", "pytest-benchmark", "pytest-xdist", "httpx", "numpy")


def mode_of(plan: DeploymentPlan) -> str:
    """Return ``real``, ``rehearsal`` or ``attached``; results never mix them."""
    if plan.name.endswith("@attached"):
        return "attached"
    return "rehearsal" if plan.rehearsal else "real"


def provenance(
    plan: DeploymentPlan, *, run_id: str, label: str, commit: str
) -> dict[str, Any]:
    """Return the plain values stored beside every figure of one deployment."""
    found: dict[str, Any] = {
        "topology": plan.name,
        "topology_hash": plan.identity,
        "hardware": plan.hardware,
        "engine": plan.engine,
        "router": plan.router,
        "model": plan.served_model,
        "gpus": plan.gpus,
        "mode": mode_of(plan),
        "run_id": run_id,
        "git_sha": commit,
        "versions": package_versions(),
    }
    images = sorted({service.image for service in plan.services if service.image})
    more = {"label": label, "images": images}
    return found | {name: value for name, value in more.items() if value}


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that make the result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def git_commit(folder: Path) -> str:
    """Return the commit of the checkout, ``+dirty`` behind it if it has changes.

    Empty outside of a checkout, and where there is no git.
    """
    head = _git(folder, "rev-parse", "HEAD")
    dirty = head and _git(folder, "status", "--porcelain", "--untracked-files=no")
    return f"{head}+dirty" if dirty else head


def _git(folder: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return this host and its variables, secrets masked, for the run directory."""
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "versions": package_versions(),
        "variables": redact_environment(environ),
    }
