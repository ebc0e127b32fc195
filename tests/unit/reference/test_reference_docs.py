"""The page about the reference engine names what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pd.reference.connector import PULLING, SHARING
from pytest_pd.reference.faults import KINDS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "reference-engine.md"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_fault_has_its_row(kind: str):
    row = f"| `{kind}` | {KINDS[kind].seam} | {KINDS[kind].effect} |"

    assert row in PAGE.read_text()


@pytest.mark.parametrize("name", [*PULLING, *SHARING])
def test_every_connector_is_named(name: str):
    assert f"`{name}`" in PAGE.read_text()
