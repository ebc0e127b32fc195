"""The installed wheel alone is enough, from an empty folder."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def call(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A virtual environment with our wheel; what it needs is borrowed from here."""
    folder = tmp_path_factory.mktemp("wheel")
    built = call(
        *(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder),
        cwd=ROOT,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    venv = folder / "venv"
    assert call(sys.executable, "-m", "venv", venv, cwd=folder).returncode == 0
    python = venv / "bin" / "python"
    done = call(python, "-m", "pip", "install", "--no-deps", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return venv / "bin"


def test_suites_run_from_an_empty_folder(installed, tmp_path):
    done = call(
        *(installed / "python", "-m", "pytest", "--pyargs"),
        *("pytest_pd.suites.correctness.test_api", "--pd-topology", "local_1p1d"),
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_every_suite_is_found_by_the_package_name(installed, tmp_path):
    done = call(
        *(installed / "python", "-m", "pytest", "--pyargs", "pytest_pd.suites"),
        *("--pd-topology", "local_1p1d", "--collect-only", "-q"),
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "correctness/test_api.py" in done.stdout
    assert "performance/test_sweep.py" in done.stdout


def test_topologies_are_listed_from_an_empty_folder(installed, tmp_path):
    done = call(installed / "pytest-pd", "topologies", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "local_1p1d" in done.stdout
    assert "k2_2p1d" in done.stdout


def test_a_project_is_laid_out_and_its_tests_pass(installed, tmp_path):
    made = call(installed / "pytest-pd", "init", "pd", cwd=tmp_path)
    assert made.returncode == 0, made.stderr

    plan = call(installed / "pytest-pd", "plan", "mine", cwd=tmp_path / "pd")
    done = call(
        *(installed / "python", "-m", "pytest", "suites/mine"),
        *("--topology", "mine", "-p", "no:randomly"),
        cwd=tmp_path / "pd",
    )

    assert plan.returncode == 0, plan.stderr
    assert "prefill-1" in plan.stdout
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_suite_of_a_project_can_be_collected(installed, tmp_path):
    call(installed / "pytest-pd", "init", "pd", cwd=tmp_path)

    done = call(
        *(installed / "python", "-m", "pytest", "--collect-only", "-q"),
        cwd=tmp_path / "pd",
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "suites/correctness/test_api.py" in done.stdout


def test_the_package_is_not_the_checkout(installed, tmp_path):
    done = call(
        installed / "python",
        "-c",
        "import pytest_pd; print(pytest_pd.__file__)",
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout
