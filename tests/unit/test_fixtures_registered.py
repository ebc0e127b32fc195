"""Every fixture of the package is part of the plugin."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from _pytest.fixtures import FixtureFunctionDefinition

from pytest_pd import fixtures
from pytest_pd.fixtures import registered

FOLDER = Path(fixtures.__file__ or "").parent


def test_each_fixture_is_registered():
    modules = [
        import_module(f"pytest_pd.fixtures.{p.stem}") for p in FOLDER.glob("*.py")
    ]
    found = {
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, FixtureFunctionDefinition)
    }

    assert found == set(registered.__all__)
