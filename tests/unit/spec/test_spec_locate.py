"""Which file a word means: project, ini folders, shipped files, in this order."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.spec.locate import (
    SHIPPED,
    Roots,
    catalogue,
    find,
    find_one,
    find_path,
    names_in,
)

Write = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that the checkout's own files are shipped ones."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_shipped_name_is_found_from_an_empty_folder(project: Path) -> None:
    (found,) = find("topologies", ["local_1p1d"])

    assert found.name == "local_1p1d"
    assert found.path.is_relative_to(SHIPPED.resolve())
    assert found.explicit


def test_the_project_comes_before_the_shipped_files(
    project: Path, write: Write
) -> None:
    mine = write(name="project/fixtures/topologies/local_1p1d.yaml")

    (found,) = find("topologies", ["local_1p1d"])

    assert found.path == mine


def test_the_ini_folder_comes_between(
    project: Path, write: Write, tmp_path: Path
) -> None:
    write(name="ini/topologies/both.yaml")
    mine = write(name="project/fixtures/topologies/both.yaml")
    only = write(name="ini/topologies/only_ini.yaml")
    roots = Roots(project, (tmp_path / "ini",))

    assert find("topologies", ["both"], roots)[0].path == mine
    assert find("topologies", ["only_ini"], roots)[0].path == only


def test_an_ini_folder_may_hold_the_files_themselves(
    project: Path, write: Write, tmp_path: Path
) -> None:
    path = write(name="flat/mine.yaml")

    assert find("topologies", ["mine"], Roots(ini=(tmp_path / "flat",)))[0].path == path


def test_the_rootdir_counts_when_pytest_runs_in_a_subfolder(
    project: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(name="project/fixtures/topologies/mine.yaml")
    (project / "sub").mkdir()
    monkeypatch.chdir(project / "sub")

    assert find("topologies", ["mine"], Roots(project))[0].path == path


def test_comma_lists_and_repeats_keep_their_order_once_each(project: Path) -> None:
    found = find("topologies", ["local_agg,local_1p1d", "local_agg", " local_2p1d "])

    assert [each.name for each in found] == ["local_agg", "local_1p1d", "local_2p1d"]


def test_members_of_a_glob_are_not_explicit(project: Path) -> None:
    found = find("topologies", ["local_*"])

    assert {"local_1p1d", "local_2p1d", "local_agg"} <= {each.name for each in found}
    assert not any(each.explicit for each in found)


def test_a_name_beside_its_glob_is_explicit(project: Path) -> None:
    found = {
        each.name: each.explicit for each in find("topologies", ["local_*,local_agg"])
    }

    assert found["local_agg"]
    assert not found["local_1p1d"]


def test_a_path_is_taken_as_it_is(project: Path, write: Write) -> None:
    path = write(name="elsewhere/mine.yaml")

    (found,) = find("topologies", [str(path)])

    assert (found.name, found.path) == ("mine", path)


def test_variants_are_names_like_any(project: Path, write: Write) -> None:
    write("variants: {big: {}}\n", name="project/fixtures/topologies/t.yaml")

    assert [each.name for each in find("topologies", ["t*"])] == ["t", "t_big"]
    assert [each.name for each in find("topologies", ["t_big"])] == ["t_big"]
    assert [each.name for each in find("topologies", ["t"])] == ["t"]


def test_a_path_without_a_base_means_all_it_has(project: Path, write: Write) -> None:
    path = write("abstract: true\nvariants: {a: {}, b: {}}\n")

    assert [each.name for each in find("topologies", [str(path)])] == ["t_a", "t_b"]


@pytest.mark.parametrize(
    ("word", "fact", "hint"),
    [
        (
            "local_1p1x",
            "topology 'local_1p1x' is not known",
            "did you mean 'local_1p1d'",
        ),
        ("./absent.yaml", "./absent.yaml is no file", "an existing path"),
        ("zzz*", "'zzz*' matches none of the topologies", "local_1p1d"),
    ],
)
def test_words_that_mean_nothing(
    project: Path, word: str, fact: str, hint: str
) -> None:
    with pytest.raises(SpecError) as caught:
        find("topologies", [word])

    assert fact in caught.value.fact
    assert hint in caught.value.hint


def test_other_kinds_are_found_alike(project: Path) -> None:
    assert find("clusters", ["local"])[0].path.name == "local.yaml"
    with pytest.raises(SpecError, match="cluster 'locla' is not known"):
        find("clusters", ["locla"])


@pytest.mark.parametrize("text", ["zzz: [\n", "variants: [\n", "variants: 1\n"])
def test_one_broken_file_does_not_hide_the_others(
    project: Path, write: Write, text: str
) -> None:
    write(text, name="project/fixtures/topologies/broken.yaml")

    assert "local_1p1d" in catalogue("topologies", Roots())


def test_fixture_paths_are_found_in_project_and_package(project: Path) -> None:
    shipped = find_path("fixtures/topologies")
    (project / "fixtures" / "models" / "mine").mkdir(parents=True)

    assert shipped == (SHIPPED / "topologies").resolve()
    assert find_path("fixtures/models/mine") == project / "fixtures/models/mine"
    assert find_path("fixtures/models/nowhere") is None
    assert find_path("org/model") is None


@pytest.mark.parametrize("words", [(), ("",), (" , ",)])
def test_no_word_at_all_is_told(project: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(SpecError, match="No topology is named") as caught:
        find("topologies", words)

    assert "local_1p1d" in caught.value.hint


def test_one_is_wanted_and_several_or_none_are_told(project: Path) -> None:
    assert find_one("clusters", ["local"]).name == "local"
    with pytest.raises(SpecError, match=r"'\*' means \d+ clusters; one is wanted"):
        find_one("clusters", ["*"])
    with pytest.raises(SpecError, match="No cluster is named"):
        find_one("clusters", [""])


def test_what_is_no_topology_is_in_nobodys_way(project: Path, write: Write) -> None:
    mine = write(name="project/fixtures/topologies/mine.yaml")
    (mine.parent / ".#mine.yaml").symlink_to("me@host.4711:1")  # as Emacs does
    (mine.parent / "gone.yaml").symlink_to("nowhere.yaml")
    (mine.parent / "dir.yaml").mkdir()
    before = set(catalogue("topologies"))

    assert find("topologies", ["mine"])[0].path == mine
    assert "mine" in before
    assert before.isdisjoint({"gone", "dir", ".#mine"})


def test_a_topology_that_cannot_be_read_has_the_name_of_its_file(
    tmp_path: Path,
) -> None:
    assert names_in(tmp_path / "closed.yaml") == ("closed",)
