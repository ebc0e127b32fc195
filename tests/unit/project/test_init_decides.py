"""What ``pytest-pd init`` does with each file: never overwrite what is not ours."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from pytest_pd.cli import main
from pytest_pd.command.init import STATE, read_state
from pytest_pd.errors import SpecError
from pytest_pd.project.layout import Act, decide, digest, sources

OLD, NEW, MINE = "a\nold\n", "a\nnew\n", "a\nmine\n"


def act(*, ours=NEW, theirs=None, before=None):
    (change,) = decide(
        {"f": ours},
        {"f": theirs} if theirs is not None else {},
        {"f": digest(before)} if before is not None else {},
    )
    return change


@pytest.mark.parametrize(
    ("theirs", "before", "expected"),
    [
        (None, None, Act.CREATE),
        (None, OLD, Act.GONE),
        (NEW, OLD, Act.SAME),
        (NEW, None, Act.SAME),
        (OLD, OLD, Act.UPDATE),
        (MINE, OLD, Act.KEEP),
        (MINE, None, Act.KEEP),
        (MINE, NEW, Act.KEEP),
    ],
    ids=["new", "removed", "same", "same-foreign", "old", "edited", "foreign", "again"],
)
def test_what_becomes_of_a_file(theirs, before, expected):
    assert act(theirs=theirs, before=before).act is expected


def test_the_diff_goes_from_yours_to_ours():
    diff = act(theirs=MINE, before=OLD).diff

    assert "-mine\n+new\n" in diff


def test_an_edit_without_news_has_no_diff():
    assert act(theirs=MINE, before=NEW).diff == ""


def test_every_suite_comes_along():
    found = sources([])

    assert "suites/correctness/test_api.py" in found
    assert "suites/performance/conftest.py" in found
    assert not any(path.endswith("__init__.py") for path in found)


def init(*words):
    return main(["init", *map(str, words)])


def test_a_project_is_laid_out(tmp_path):
    assert init(tmp_path / "p") == 0

    names = {
        str(p.relative_to(tmp_path / "p"))
        for p in (tmp_path / "p").rglob("*")
        if p.is_file()
    }
    assert names >= {
        "conftest.py",
        "pytest.ini",
        ".github/workflows/nightly.yml",
        ".gitlab-ci.yml",
        "nightly.sh",
        "fixtures/topologies/mine.yaml",
        "suites/mine/test_mine.py",
    }
    assert (tmp_path / "p" / "nightly.sh").stat().st_mode & stat.S_IXUSR


def test_only_the_recipe_that_was_asked_for(tmp_path):
    init(tmp_path, "--ci", "gitlab")

    assert (tmp_path / ".gitlab-ci.yml").exists()
    assert not (tmp_path / "nightly.sh").exists()
    assert not (tmp_path / ".github").exists()


def test_what_exists_is_kept(tmp_path, capsys):
    (tmp_path / "conftest.py").write_text("mine = 1\n")

    assert init(tmp_path) == 0

    assert (tmp_path / "conftest.py").read_text() == "mine = 1\n"
    assert "yours, kept: conftest.py" in capsys.readouterr().out


def test_a_second_init_is_refused(tmp_path, capsys):
    init(tmp_path)

    assert init(tmp_path) == 2
    assert "--update" in capsys.readouterr().err


def test_an_update_of_no_project_is_refused(tmp_path):
    assert init(tmp_path, "--update") == 2


@pytest.fixture
def older(tmp_path):
    """A project laid out by an older version, with one edit and one removal."""
    init(tmp_path, "--ci", "none")
    state = json.loads((tmp_path / ".pytest-pd.json").read_text())
    for name in ("pytest.ini", "conftest.py"):
        (tmp_path / name).write_text("# old\n")
        state["files"][name] = digest("# old\n")
    (tmp_path / "conftest.py").write_text("# my edit\n")
    (tmp_path / "quarantine.yaml").unlink()
    (tmp_path / ".pytest-pd.json").write_text(json.dumps(state))
    return tmp_path


def test_update_brings_what_is_new_and_shows_it(older, capsys):
    assert init("--update", older) == 0

    said = capsys.readouterr().out
    assert "testpaths = suites" in (older / "pytest.ini").read_text()
    assert "-# old\n+[pytest]" in said
    assert (older / "conftest.py").read_text() == "# my edit\n"
    assert "-# my edit" in said
    assert not (older / "quarantine.yaml").exists()
    assert not (older / "nightly.sh").exists()


def test_update_shows_an_edit_once(older, capsys):
    init("--update", older)
    capsys.readouterr()

    init("--update", older)

    assert "-# my edit" not in capsys.readouterr().out


def test_dry_run_writes_nothing(older):
    before = {p: p.read_bytes() for p in older.rglob("*") if p.is_file()}

    assert init("--update", older, "--dry-run") == 0

    assert {p: p.read_bytes() for p in older.rglob("*") if p.is_file()} == before


def test_a_damaged_state_is_told(tmp_path, capsys):
    (tmp_path / ".pytest-pd.json").write_text("{")

    assert init("--update", tmp_path) == 2
    assert "is damaged" in capsys.readouterr().err


def test_a_file_in_the_way_is_told(tmp_path, capsys):
    (tmp_path / "suites").write_text("no folder")

    assert init(tmp_path) == 2
    assert "cannot be" in capsys.readouterr().err


def test_the_conftest_is_that_of_this_project():
    root = Path(__file__).parents[3]

    assert sources([])["conftest.py"] == (root / "conftest.py").read_text()


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_the_script_is_shell(tmp_path):
    import subprocess

    init(tmp_path)

    subprocess.run(["sh", "-n", str(tmp_path / "nightly.sh")], check=True)


@pytest.mark.parametrize("more", ['"ci": null', '"ci": [1]', '"files": {"a": 1}'])
def test_a_state_of_another_shape_is_damaged(tmp_path, more):
    (tmp_path / STATE).write_text('{"files": {}, ' + more + "}")

    with pytest.raises(SpecError, match="is damaged"):
        read_state(tmp_path)
