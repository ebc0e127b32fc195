"""The code in pages runs, and the files in pages are the files that are shipped."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from pytest_pd.cli import main
from pytest_pd.project.layout import sources
from pytest_pd.routers import ROUTERS
from pytest_pd.spec.quarantine import QuarantineSpec

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RECIPES = ("nightly.sh", ".github/workflows/nightly.yml", ".gitlab-ci.yml")


def blocks(page, language):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [body for found, body in BLOCK.findall(text) if found == language]


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_in_the_page_is_the_one_that_init_writes(name):
    page = (ROOT / "docs" / "how-to" / "nightly.md").read_text(encoding="utf-8")

    assert sources(["github", "gitlab", "cron"])[name] in page


@pytest.fixture
def my_router(monkeypatch):
    """Register the router of the page as its own package would."""
    (code,) = blocks("how-to/extend.md", "python")
    made = {}
    exec(compile(code, "my_router.py", "exec"), made)
    monkeypatch.setitem(ROUTERS._builtin, "my_router", "json:loads")
    real = ROUTERS.get
    monkeypatch.setattr(
        ROUTERS,
        "get",
        lambda name: made["MyRouter"] if name == "my_router" else real(name),
    )


def test_the_router_of_the_page_makes_a_plan(my_router, tmp_path, capsys):
    spec = (ROOT / "fixtures" / "topologies" / "local_1p1d.yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(spec.replace("kind: proxy", "kind: my_router"))

    assert main(["plan", str(path), "--commands"]) == 0

    said = capsys.readouterr().out
    assert "my-router --listen http://node0:8000" in said
    assert "--prefill http://node0:8100" in said


def test_the_entry_point_of_the_page_is_one():
    (text,) = blocks("how-to/extend.md", "toml")

    groups = tomllib.loads(text)["project"]["entry-points"]
    assert groups == {ROUTERS.group: {"my_router": "my_router:MyRouter"}}


def test_the_topology_of_the_page_makes_a_plan(tmp_path, capsys):
    (text,) = blocks("how-to/own-topology.md", "yaml")
    path = tmp_path / "mine.yaml"
    path.write_text(text)

    assert main(["plan", str(path)]) == 0
    assert "prefill-1" in capsys.readouterr().out


def test_the_quarantine_of_the_page_is_one():
    (text,) = blocks("reference/nightly.md", "yaml")

    found = QuarantineSpec.model_validate(yaml.safe_load(text))
    assert found.of("suites/correctness/test_routing.py::test_x[topo:k2_2p1d]")


def test_the_suite_of_the_page_can_be_read():
    (text,) = blocks("how-to/own-suite.md", "python")

    compile(text, "page", "exec")
