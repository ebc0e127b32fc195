"""What suites record and what they can ask for stands in the documentation."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INNER = {"provenance", "aggregated_client", "bench", "load_from", "warmer"}
"""Fixtures that only other fixtures use."""


def page(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def calls(folder, name):
    """Yield the first argument of every call of `name` that is written out."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and ast.unparse(node.func) == name
            if called and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value)


def fixtures():
    """Yield the names of the fixtures that every suite can ask for."""
    for path in sorted((ROOT / "fixtures").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and any(
                "pytest.fixture" in ast.unparse(d) for d in node.decorator_list
            ):
                yield node.name


METRICS = sorted({*calls("suites", "Measurement"), *calls("pytest_pd", "Measurement")})


def test_suites_record_something():
    assert {"eval_sample", "kv_handover_bound"} <= set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_explained(name):
    assert f"`{name}`" in page("reference/metrics.md")


@pytest.mark.parametrize("name", sorted(set(fixtures()) - INNER))
def test_every_fixture_is_explained(name):
    assert f"`{name}`" in page("how-to/own-suite.md")


def test_every_option_of_the_plugin_is_explained():
    from pytest_pd.plugin.options import OPTIONS

    text = page("reference/options.md")

    missing = [o.name for o in OPTIONS if f"--pd-{o.name}" not in text]
    assert missing == []


def test_every_command_is_spoken_of():
    from pytest_pd.cli import COMMANDS

    text = (ROOT / "README.md").read_text(encoding="utf-8") + "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")
    )

    assert [name for name in COMMANDS if f"pytest-pd {name}" not in text] == []
