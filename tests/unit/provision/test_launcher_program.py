"""The launcher as a program of its own, on old Pythons too."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_pd.provision import launcher
from tests.kit import wait_until

OLD_PYTHONS = ("python3.6", "python3.7", "python3.8", "python3.9")
SECRET = "hf_planted_0123456789"
ASIDE = ("x.log.first", "x.log.last")
SLEEP = "import time; print('up', flush=True); time.sleep(600)"


def old_python() -> str | None:
    """Return the oldest Python of this machine that can be found."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for name in OLD_PYTHONS:
        version = name.removeprefix("python")
        places = [*pyenv.glob(f"{version}.*/bin/{name}"), shutil.which(name)]
        for place in filter(None, places):
            probe = subprocess.run([str(place), "-c", ""], capture_output=True)
            if probe.returncode == 0:
                return str(place)
    return None


def request(folder: Path, *argv: str, **fields) -> dict:
    (folder / "lease").write_text(fields.pop("lease_text", "1"))
    given = {
        "name": "one",
        "mark": "unit/toy/one",
        "argv": list(argv),
        "env": {},
        "env_unset": [],
        "cwd": None,
        "log": str(folder / "logs" / "one.log"),
        "log_cap_bytes": 1 << 20,
        "state": str(folder / "state"),
        "lease": str(folder / "lease"),
        "ttl_s": 60.0,
        "poll_s": 0.05,
        "grace_s": 5.0,
    }
    return {**given, **fields}


@contextmanager
def launched(asked: dict, python: str = sys.executable):
    words = [python, "-S", "-E", launcher.__file__]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(json.dumps(asked).encode())
        child.stdin.close()
        try:
            yield child
        finally:
            child.send_signal(signal.SIGUSR1)
            child.wait(60)


def record(folder: Path, kind: str) -> dict:
    path = folder / "state" / f"one.{kind}.json"
    wait_until(path.exists, kind)
    return json.loads(path.read_text())


def run(asked: dict, folder: Path, python: str = sys.executable) -> dict:
    with launched(asked, python) as child:
        child.wait(60)
    return record(folder, "ended")


def test_a_service_that_ends_is_recorded_with_its_code(tmp_path):
    ended = run(request(tmp_path, "sh", "-c", "echo hi; exit 5"), tmp_path)

    assert (ended["exit_code"], ended["reason"]) == (5, "exited")
    assert (tmp_path / "logs" / "one.log").read_text() == "hi\n"


def test_an_old_python_runs_it_too(tmp_path):
    python = old_python()
    if python is None:
        pytest.skip("no Python below 3.10 here: pyenv install 3.6")
    word = "it's ünï\n"
    asked = request(tmp_path, "sh", "-c", 'printf %s "$1"; exit 5', "sh", word)

    assert run(asked, tmp_path, python)["exit_code"] == 5
    assert (tmp_path / "logs" / "one.log").read_bytes() == word.encode()


def test_the_locale_of_the_machine_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONUTF8", "0")
    asked = request(tmp_path, "sh", "-c", 'printf %s "$1$X"', "sh", "→", env={"X": "ü"})

    run(asked, tmp_path)

    assert (tmp_path / "logs" / "one.log").read_bytes() == "→ü".encode()


def test_records_are_for_the_owner_only(tmp_path):
    run(request(tmp_path, "true"), tmp_path)

    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "state").iterdir()}
    assert modes == {0o600}


def test_a_missing_program_is_code_127_and_a_line_in_the_log(tmp_path):
    ended = run(request(tmp_path, "no-such-engine"), tmp_path)

    assert ended["exit_code"] == 127
    assert "cannot start 'no-such-engine'" in (tmp_path / "logs/one.log").read_text()


def test_a_lease_given_back_ends_the_service(tmp_path):
    asked = request(tmp_path, sys.executable, "-c", SLEEP)
    with launched(asked) as child:
        record(tmp_path, "started")
        (tmp_path / "lease").write_text("bye\n")
        child.wait(60)

    assert record(tmp_path, "ended")["reason"] == "lease over"


def test_nothing_starts_under_a_lease_given_back(tmp_path):
    ended = run(request(tmp_path, "true", lease_text="bye"), tmp_path)

    assert ended["reason"] == "lease over"
    assert not (tmp_path / "state" / "one.started.json").exists()


def test_a_lease_that_stands_still_ends_the_service(tmp_path):
    asked = request(tmp_path, sys.executable, "-c", SLEEP, ttl_s=0.3)
    with launched(asked) as child:
        child.wait(60)

    assert record(tmp_path, "ended")["reason"] == "lease over"


def test_a_request_cut_short_starts_nothing(tmp_path):
    words = [sys.executable, "-S", "-E", launcher.__file__]

    done = subprocess.run(words, input=b'{"name": "on', timeout=60)

    assert done.returncode == 2


def test_ignored_signals_are_not_inherited(tmp_path):
    code = "import signal; print(signal.getsignal(signal.SIGINT))"
    asked = request(tmp_path, sys.executable, "-S", "-E", "-c", code)
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(asked, tmp_path)
    finally:
        signal.signal(signal.SIGINT, old)

    assert "default_int_handler" in (tmp_path / "logs" / "one.log").read_text()


def test_the_working_folder_can_be_chosen(tmp_path):
    run(request(tmp_path, "pwd", cwd=str(tmp_path)), tmp_path)

    assert (tmp_path / "logs" / "one.log").read_text().strip() == str(tmp_path)


def lease(tmp_path, text: str | None = "1", ttl_s=10.0):
    if text is not None:
        (tmp_path / "lease").write_text(text)
    return launcher.Lease(str(tmp_path / "lease"), ttl_s, poll_s=0.25)


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(launcher.time, "monotonic", lambda: now[0])
    return now


def look(made, clock, count, step_s=0.25):
    for _ in range(count):
        clock[0] += step_s
        if made.over():
            return True
    return False


def test_a_lease_that_changes_is_never_over(tmp_path, clock):
    made = lease(tmp_path)
    for number in range(100):
        (tmp_path / "lease").write_text(str(number))
        assert not look(made, clock, 10)


def test_a_lease_that_cannot_be_read_is_over_only_after_the_ttl(tmp_path, clock):
    made = lease(tmp_path, text=None)

    assert not look(made, clock, 39)
    assert look(made, clock, 10)


def test_an_empty_lease_says_nothing(tmp_path, clock):
    made = lease(tmp_path)
    assert not look(made, clock, 20)
    (tmp_path / "lease").write_text("")

    assert not look(made, clock, 19)
    assert look(made, clock, 10)


def test_a_pause_of_the_whole_machine_counts_as_one_look(tmp_path, clock):
    made = lease(tmp_path)
    assert not look(made, clock, 3)

    assert not look(made, clock, 1, step_s=3600.0)


def cap(log, masked=0, **more):
    return launcher.cap_log({"log": str(log), "log_cap_bytes": 50, **more}, masked)


def test_a_full_log_is_set_aside_and_what_follows_is_kept(tmp_path):
    log = tmp_path / "x.log"
    for number in range(4):
        log.write_text(str(number) * 100)
        assert cap(log, masked=7) == 0

    assert log.read_text() == ""
    assert (tmp_path / "x.log.first").read_text() == "0" * 100
    assert (tmp_path / "x.log.last").read_text() == "3" * 100


def test_a_log_below_its_cap_is_left_alone(tmp_path):
    (tmp_path / "x.log").write_text("short")

    assert cap(tmp_path / "x.log", masked=5) == 5

    assert [p.name for p in tmp_path.iterdir()] == ["x.log"]


def test_a_log_that_cannot_be_set_aside_gets_its_room_back(tmp_path):
    (tmp_path / "x.log").write_text("0" * 100)
    (tmp_path / "x.log.first").mkdir()
    (tmp_path / "x.log.last").mkdir()

    cap(tmp_path / "x.log")

    assert (tmp_path / "x.log").read_text() == ""


def test_a_log_that_is_away_is_not_set_aside(tmp_path):
    assert cap(tmp_path / "x.log", masked=5) == 5


def test_a_log_that_is_set_aside_is_for_its_owner_only(tmp_path):
    for _ in range(2):
        (tmp_path / "x.log").write_text("0" * 100)
        cap(tmp_path / "x.log")

    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in ASIDE}
    assert modes == dict.fromkeys(ASIDE, 0o600)


@pytest.mark.parametrize("masked", [0, 60, 75])
def test_what_was_printed_since_the_last_look_is_masked_when_set_aside(
    tmp_path, masked
):
    text = "0" * 70 + SECRET + "1" * 20
    (tmp_path / "x.log").write_text(text)

    cap(tmp_path / "x.log", masked, secrets=[SECRET])

    first = (tmp_path / "x.log.first").read_text()
    assert first == text.replace(SECRET, "*" * len(SECRET))


def test_a_log_is_masked_before_the_end_is_told(tmp_path, monkeypatch):
    log, told = tmp_path / "one.log", []
    asked = request(tmp_path, "true", log=str(log), secrets=[SECRET])
    log.write_text(f"token {SECRET}\n")
    monkeypatch.setattr(launcher, "write_json", lambda *_: told.append(log.read_text()))

    launcher.Launcher(asked).ended(1, "exited")

    assert told == [f"token {'*' * len(SECRET)}\n"]


def test_what_a_service_says_while_it_is_stopped_is_masked(tmp_path):
    code = (
        "import signal, sys, time\n"
        f"def last(*_): print('{SECRET}', flush=True); time.sleep(600)\n"
        "signal.signal(signal.SIGTERM, last)\n"
        "print('up', flush=True); time.sleep(600)"
    )
    log = tmp_path / "logs" / "one.log"
    asked = request(
        tmp_path, sys.executable, "-c", code, secrets=[SECRET], grace_s=60.0
    )
    with launched(asked) as child:
        wait_until(lambda: log.exists() and "up" in log.read_text(), "the start")
        child.terminate()
        wait_until(lambda: "*" * len(SECRET) in log.read_text(), "the mask")

        assert child.poll() is None


def test_a_writer_goes_on_in_a_log_that_was_set_aside(tmp_path):
    code = (
        "import time\n"
        "for n in range(200): print('x' * 99, flush=True); time.sleep(0.005)\n"
        "print('the end')"
    )
    asked = request(tmp_path, sys.executable, "-c", code, log_cap_bytes=2000)

    run(asked, tmp_path)

    log = tmp_path / "logs" / "one.log"
    last = log.read_text() or log.with_name("one.log.last").read_text()
    assert last.endswith("the end\n")
    assert log.stat().st_size < 200 * 100
    assert log.with_name("one.log.first").exists()


def test_zombies_count_as_gone():
    child = subprocess.Popen(["true"])
    wait_until(lambda: launcher.start_time(child.pid) is None, "the zombie")
    child.wait()


def test_descendants_are_found_below_a_dead_generation():
    code = (
        "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        wait_until(lambda: len(launcher.descendants(child.pid)) == 1, "the child")
        launcher.send([*launcher.descendants(child.pid), child.pid], signal.SIGKILL)
