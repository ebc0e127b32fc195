"""Plain option names (``--topology``) for this project; the plugin does the rest."""

from __future__ import annotations

import pytest

from pytest_pd.plugin.options import add_plain_options


def pytest_addoption(parser: pytest.Parser) -> None:
    add_plain_options(parser)
