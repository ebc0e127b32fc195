"""Services that not every machine has: a skip on a laptop, a failure in CI."""

from __future__ import annotations

import os

import pytest

REQUIRED = "PD_REQUIRE"
"""Variable with a comma list of services that must be there, as in CI."""


def require(name: str, reason: str) -> None:
    """Skip the test with `reason`, or fail it where `name` is required.

    Args:
        name: Short name of the service: ``vllm``, ``slurm``, ``sshd``, ...
        reason: What is missing, and the command that installs it.
    """
    if name in os.environ.get(REQUIRED, "").split(","):
        pytest.fail(f"{name} is required here ({REQUIRED}): {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")
