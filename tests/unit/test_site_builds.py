"""The documentation site is built strictly: a broken link or anchor is an error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(root, site):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-d", str(site)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    place = tmp_path_factory.mktemp("site")
    done = build(ROOT, place)
    assert done.returncode == 0, done.stderr
    return place


def test_every_page_is_in_the_menu(site):
    menu = (site / "index.html").read_text(encoding="utf-8")
    pages = [p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md")]

    missing = [p for p in pages if f'href="{p.with_suffix(".html")}"' not in menu]

    assert missing == []
    assert 'href="explanation/architecture.html"' in menu
    assert 'href="explanation/security.html"' in menu


def test_no_page_loads_anything_from_elsewhere(site):
    foreign = [
        f"{page.relative_to(site)}: {line.strip()[:90]}"
        for page in site.rglob("*.html")
        for line in page.read_text(encoding="utf-8").splitlines()
        if ("<script" in line or "<link" in line) and "//" in line
    ]

    assert foreign == []


def test_a_broken_link_is_an_error(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in ("mkdocs.yml", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    page = tmp_path / "docs" / "how-to" / "nightly.md"
    page.write_text(page.read_text() + "\n[gone](../reference/report.md#no-anchor)\n")

    done = build(tmp_path, tmp_path / "site")

    assert done.returncode != 0
    assert "no-anchor" in done.stderr
