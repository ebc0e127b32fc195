"""What the far side sends of its files, without a network."""

import base64
import json

import pytest

from pytest_pd.provision.slurm_step import step_code
from pytest_pd.provision.ssh_mirror import Mirror

STARTED = {"launcher_pid": 7, "launcher_start_time": 99}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "state").mkdir()
    return tmp_path


def sent(mirror):
    return list(mirror.look())


def data(items, name):
    return b"".join(
        base64.b64decode(item["data"]) for item in items if item.get("file") == name
    )


def test_a_log_is_sent_as_it_grows(root):
    log, mirror = root / "logs" / "a.log", Mirror(str(root), lambda pid: 99)
    log.write_bytes(b"one\n")
    assert data(sent(mirror), "logs/a.log") == b"one\n"
    with log.open("ab") as file:
        file.write(b"two\n")

    (item,) = sent(mirror)

    assert item["offset"] == 4
    assert base64.b64decode(item["data"]) == b"two\n"
    assert sent(mirror) == []


def test_a_log_that_was_cut_short_is_sent_anew(root):
    log, mirror = root / "logs" / "a.log", Mirror(str(root), lambda pid: 99)
    log.write_bytes(b"long enough")
    sent(mirror)
    log.write_bytes(b"new")

    (item,) = sent(mirror)

    assert (item["offset"], base64.b64decode(item["data"])) == (0, b"new")


def test_a_big_log_comes_in_pieces(root):
    (root / "logs" / "a.log").write_bytes(b"x" * 600_000)

    items = sent(Mirror(str(root), lambda pid: 99))

    assert len(items) == 3
    assert len(data(items, "logs/a.log")) == 600_000


@pytest.mark.parametrize("lives", [None, 100])
def test_a_launcher_that_ended_or_was_replaced_is_gone_once(root, lives):
    (root / "state" / "a.started.json").write_text(json.dumps(STARTED))
    mirror = Mirror(str(root), lambda pid: lives)

    assert sent(mirror)[-1] == {"gone": "a"}
    assert sent(mirror) == []


def test_a_launcher_that_lives_is_not_gone(root):
    (root / "state" / "a.started.json").write_text(json.dumps(STARTED))

    items = sent(Mirror(str(root), lambda pid: 99))

    assert [item for item in items if "gone" in item] == []


def started(root, **fields):
    """Replace the record of a start in one step, as the launcher does."""
    partial = root / "state" / "a.partial"
    partial.write_text(json.dumps({**STARTED, **fields}))
    partial.replace(root / "state" / "a.started.json")


@pytest.mark.parametrize("pid", [8, 1_000_000])
def test_a_record_that_was_replaced_is_sent_whole(root, pid):
    mirror = Mirror(str(root), lambda pid: 99)
    started(root)
    sent(mirror)
    started(root, launcher_pid=pid)

    (item,) = sent(mirror)

    assert item["offset"] == 0
    assert json.loads(base64.b64decode(item["data"]))["launcher_pid"] == pid
    assert sent(mirror) == []


def test_a_service_that_was_started_anew_is_gone_a_second_time(root):
    mirror = Mirror(str(root), lambda pid: None)
    started(root)
    assert sent(mirror)[-1] == {"gone": "a"}
    started(root, launcher_start_time=101)

    assert sent(mirror)[-1] == {"gone": "a"}
    assert sent(mirror) == []


def test_the_end_comes_after_log_and_record(root):
    (root / "logs" / "a.log").write_text("last words")
    (root / "state" / "a.started.json").write_text(json.dumps(STARTED))
    (root / "state" / "a.ended.json").write_text('{"exit_code": 3}')

    items = sent(Mirror(str(root), lambda pid: None))

    order = [item.get("file") or "gone" for item in items]
    assert order[0] == "logs/a.log"
    assert order[-1] == "gone"


@pytest.mark.parametrize(("srun", "code"), [(3, 3), (137, -9), (143, -15), (0, -9)])
def test_codes_of_srun_are_those_of_a_process(srun, code):
    assert step_code(srun) == code
