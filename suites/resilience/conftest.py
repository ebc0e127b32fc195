"""What breaks things runs only when it is asked for: ``-m fault``."""

from __future__ import annotations

import re

import pytest


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave these suites out unless the mark expression or a path names them."""
    asked = re.search(r"\bfault\b", config.getoption("markexpr", "") or "")
    if asked:
        return
    left = [item for item in items if item.get_closest_marker("fault")]
    if left:
        items[:] = [item for item in items if item not in left]
        config.hook.pytest_deselected(items=left)
