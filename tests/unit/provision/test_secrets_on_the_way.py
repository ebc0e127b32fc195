"""What a pod or a host sends of a log is masked before it is written here."""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from pytest_pd.provision.kubernetes.follow import LogFollower
from pytest_pd.provision.kubernetes.state import PodState
from pytest_pd.provision.masking import Masker
from pytest_pd.provision.ssh_host import RemoteHost

SECRET = "hf_planted_0123456789"
STARS = "*" * len(SECRET)


def through(masker, *pieces):
    return b"".join(map(masker.feed, pieces)) + masker.flush()


@pytest.mark.parametrize("size", [1, 2, 7, 20, 21, 22, 1000])
def test_a_secret_is_found_however_it_is_cut(size):
    text = f"a {SECRET}{SECRET} hf_plan\n{SECRET}\nhf_".encode()
    pieces = [text[at : at + size] for at in range(0, len(text), size)]

    found = through(Masker([SECRET]), *pieces)

    assert found == text.replace(SECRET.encode(), STARS.encode())


def test_only_what_may_begin_a_secret_is_held_back():
    masker = Masker([SECRET])

    assert masker.feed(b"ready\n") == b"ready\n"
    assert masker.feed(b"token hf_") == b"token "
    assert masker.feed(b"other\n") == b"hf_other\n"


def test_the_longer_of_two_secrets_that_begin_alike_is_found():
    assert through(Masker(["abcdef", "abcdefgh"]), b"abcdef", b"gh.") == b"********."


def test_the_end_of_a_secret_that_begins_another_is_masked():
    assert through(Masker(["abcabc"]), b"xabcabc", b"\n") == b"x******\n"


def test_a_secret_whose_rest_was_masked_on_the_far_side_is_masked():
    masker = Masker([SECRET])

    assert through(masker, b"hf_pla", b"*" * (len(SECRET) - 6) + b"\n") == (
        f"{STARS}\n".encode()
    )


@pytest.fixture
def log(tmp_path):
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs" / "decode-0.log"


class Cluster:
    """One pod that has ended, and its log in several connections."""

    def __init__(self, *connections):
        self.connections = list(connections)

    def state(self, _):
        return PodState("Failed", code=1)

    @contextmanager
    def stream(self, *_):
        yield Pieces(self.connections.pop(0))


class Pieces:
    def __init__(self, pieces):
        self.pieces = list(pieces)

    def read1(self, _):
        piece = self.pieces.pop(0) if self.pieces else b""
        if isinstance(piece, Exception):
            raise piece
        return piece


def followed(log, *connections):
    cluster = Cluster(*connections)
    made = LogFollower(cluster, cluster, ("ns", "pod", "c"), log, [SECRET])
    made.start()
    assert made.done.wait(10)
    return made


def test_the_log_of_a_pod_is_masked_over_a_broken_connection(log):
    text = f"token {SECRET} end hf_".encode()

    followed(log, [text[:9], OSError("broken")], [text[:15], text[15:]])

    assert log.read_text() == f"token {STARS} end hf_"


def test_what_the_cluster_tells_of_an_end_is_masked(log):
    followed(log, []).say(f"ended: Error: no such token {SECRET}")

    assert SECRET not in log.read_text()
    assert STARS in log.read_text()


def sent(offset, text):
    data = base64.b64encode(text.encode()).decode()
    return json.dumps({"file": "logs/decode-0.log", "offset": offset, "data": data})


def mirrored(tmp_path, *lines):
    """Return a host that has sent lines."""
    host = RemoteHost(
        SimpleNamespace(python="python3"), SimpleNamespace(name="h"), "/r", tmp_path
    )
    host.secrets.add(SECRET)
    for line in lines:
        host._take(line)
    return host


def test_the_log_of_a_host_is_masked_wherever_it_is_cut(tmp_path, log):
    mirrored(tmp_path, sent(0, f"a {SECRET[:5]}"), sent(7, SECRET[5:]))

    assert log.read_text() == f"a {STARS}"


def test_a_log_that_is_sent_anew_is_masked_anew(tmp_path, log):
    lines = sent(0, "a hf_"), sent(0, "a "), sent(2, f"{SECRET}\n")

    mirrored(tmp_path, *lines)

    assert log.read_text() == f"a {STARS}\n"


def test_what_a_host_said_last_is_whole_once_it_is_closed(tmp_path, log):
    host = mirrored(tmp_path, sent(0, "to be continued hf_"))
    host.close(remove=None)

    assert log.read_text() == "to be continued hf_"
