"""Full disks, lost descriptors, jumping clocks, dead names: told, survived, cleaned up.

Each test runs a whole pytest on the embedded engine in a process of its own. What was
measured before the trouble is read back through ``pytest-pd report``, and nothing of
the run may live on.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_pd.provision.identity import marked_with
from tests.kit import wait_until
from tests.services import require

MEASURED = """
from pytest_pd.measure.measurement import Measurement


def test_a_measures(deployment, record, ask, prompts):
    assert ask(prompts.make("a", tokens=40).text, max_tokens=2).ok
    record([Measurement("before_trouble", (0.25, 0.5), unit="s")])


def test_b_meets_trouble(deployment, ask, prompts):
{trouble}


def test_c_goes_on(deployment, record):
    record([Measurement("after_trouble", (0.75, 1.0), unit="s")])
"""

FILL = """
    import os
    with (deployment.run_dir / "fill").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
"""
NO_FILES = """
    import os, pytest
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        assert error.errno == 24
    pytest.pd_held = held  # nothing gives them back
"""
KILLED = """
    import os
    os.kill(os.getpid(), 9)
"""
CLOCK = """
    import time
    real, ahead_s = time.time, {ahead_s}
    time.time = lambda: real() + ahead_s
    assert ask(prompts.make("b", tokens=40).text, max_tokens=2).ok
"""
TOGETHER = """
    import time
    from pathlib import Path
    (Path.cwd() / "up").touch()
    other = Path(Path("other.txt").read_text()) / "up"
    end_s = time.monotonic() + 120
    while not other.exists():
        assert time.monotonic() < end_s, "the other harness did not come up"
        time.sleep(0.05)
    for n in range(8):
        question = prompts.make(n, tokens=60, answer_tokens=8)
        assert ask(question.text, max_tokens=8).text == question.expected
"""


def begin(folder: Path, trouble: str, *options: str, limit: str = ""):
    """Start pytest in `folder`; `limit` are words of ``ulimit``."""
    suite = MEASURED.replace("{trouble}", trouble)
    (folder / "test_mine.py").write_text(suite)
    words = [sys.executable, "-m", "pytest", "test_mine.py", "-p", "no:randomly"]
    words += ["-p", "no:cacheprovider", "--pd-topology", "local_1p1d", *options]
    if limit:
        words = ["bash", "-c", f'ulimit {limit}; exec "$@"', "limited", *words]
    return subprocess.Popen(
        words,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, trouble: str, *options: str, limit: str = ""):
    """Run pytest to its end; return exit code and what it printed."""
    with begin(folder, trouble, *options, limit=limit) as child:
        text, _ = child.communicate(timeout=240)
    assert "INTERNALERROR" not in text, text[-4000:]
    return child.returncode, text


def recovered(run_dir: Path, out: Path) -> str:
    """Return the tables that ``pytest-pd report`` makes of what a run has left."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest_pd.cli",
            "report",
            str(run_dir),
            "--out",
            str(out),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (out / "results.csv").read_text()


def assert_gone(run_dir: Path) -> None:
    """Wait until no process of a run is left."""
    (manifest,) = run_dir.glob("*/manifest.json")
    run_id = json.loads(manifest.read_text())["run_id"]
    wait_until(lambda: not list(marked_with(f"{run_id}/")), "the end", deadline_s=60)


@contextmanager
def small_disk(place: Path, *options: str):
    """Mount a small file system of its own."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        require("loop-mount", "root is needed to mount a small disk")
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", ",".join(("size=6m", *options))]
    done = subprocess.run([*words, "tmpfs", str(place)], check=False)
    if done.returncode != 0:
        require("loop-mount", "this kernel mounts no tmpfs here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_loses_nothing_that_was_measured(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        code, text = run(tmp_path, FILL, "--pd-run-dir", str(disk / "run"))

        assert code == 1, text
        assert "No space left" in text
        assert "before_trouble" in recovered(disk / "run", tmp_path / "report")
        assert_gone(disk / "run")


def test_a_disk_that_is_read_only_from_the_start_is_told(tmp_path):
    with small_disk(tmp_path / "disk", "ro") as disk:
        code, text = run(tmp_path, "    pass", "--pd-run-dir", str(disk / "run"))

    assert code == 1, text
    assert "cannot be written: Read-only file system" in text
    assert "--run-dir" in text


def test_a_harness_without_file_descriptors_tells_it_and_goes_down(tmp_path):
    code, text = run(tmp_path, NO_FILES, "--pd-run-dir", "run", limit="-n 128")

    assert code == 1, text
    assert "Too many open files" in text
    assert "before_trouble" in recovered(tmp_path / "run", tmp_path / "report")
    assert_gone(tmp_path / "run")


def test_too_few_file_descriptors_from_the_start_are_told(tmp_path):
    code, text = run(tmp_path, "    pass", "--pd-run-dir", "run", limit="-n 16")

    assert code != 0
    assert "Too many open files" in text
    if list((tmp_path / "run").glob("*/manifest.json")):
        assert_gone(tmp_path / "run")


@pytest.mark.parametrize("ahead_s", [86400, -86400], ids=["ahead", "back"])
def test_a_clock_that_jumps_changes_nothing(tmp_path, ahead_s):
    trouble = CLOCK.replace("{ahead_s}", str(ahead_s))

    code, text = run(tmp_path, trouble, "--pd-run-dir", "run")

    assert code == 0, text
    table = recovered(tmp_path / "run", tmp_path / "report")
    assert "before_trouble" in table
    assert "after_trouble" in table
    assert_gone(tmp_path / "run")


def test_a_killed_run_is_read_back(tmp_path):
    code, _ = run(tmp_path, KILLED, "--pd-run-dir", "run")

    assert code == -9
    table = recovered(tmp_path / "run", tmp_path / "report")
    assert "before_trouble" in table
    assert "after_trouble" not in table
    assert_gone(tmp_path / "run")


def test_two_harnesses_at_once_keep_out_of_each_others_way(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, other in zip(folders, reversed(folders), strict=True):
        folder.mkdir()
        (folder / "other.txt").write_text(str(other))
    options = ("--pd-run-dir", "run", "--pd-share-nodes")
    children = [begin(folder, TOGETHER, *options) for folder in folders]

    texts = [child.communicate(timeout=240)[0] for child in children]

    assert [child.returncode for child in children] == [0, 0], "\n".join(texts)
    for folder in folders:
        assert "after_trouble" in recovered(folder / "run", folder / "report")
        assert_gone(folder / "run")


HOSTILE = ('it\'s a "run"; touch hurt', "..back\nslash\\ $(touch hurt) `x`", "ünï→ *")


@pytest.mark.parametrize("name", HOSTILE, ids=["quotes", "newline", "unicode"])
def test_a_hostile_folder_is_a_folder(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()

    code, text = run(folder, "    pass", "--pd-run-dir", str(folder / name))

    assert code == 0, text
    assert "after_trouble" in recovered(folder / name, folder / "report")
    assert not list(tmp_path.rglob("hurt"))
    assert_gone(folder / name)


@pytest.mark.parametrize(
    "options",
    [
        ("--pd-attach", "http://no-such-host.invalid:8000"),
        ("--pd-cluster", "far.yaml", "--pd-rehearse"),
    ],
    ids=["attach", "ssh"],
)
def test_a_name_that_no_server_knows_is_one_message(tmp_path, options):
    (tmp_path / "far.yaml").write_text(
        "name: far\nbackend: ssh\nssh: {hosts: [no-such-host.invalid]}\n"
    )

    code, text = run(tmp_path, "    pass", *options)

    assert code in (1, 4), text
    assert "no-such-host.invalid" in text
    assert "Traceback (most recent call last)" not in text
