"""A tag can be moved to other code by whoever owns it; a commit cannot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = [
    path
    for folder in ("pytest_pd/project/files", "docs", ".github")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".txt", ".yml", ".yaml", ".md") and "uses:" in path.read_text()
]
USES = re.compile(r"^\s*-?\s*uses:\s*(\S+)", re.MULTILINE)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(ROOT)))
def test_actions_are_named_by_commit(path):
    used = USES.findall(path.read_text())

    assert used
    assert [u for u in used if not re.search(r"@[0-9a-f]{40}$", u)] == []
