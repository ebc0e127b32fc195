"""What a service prints of its secrets is overwritten in its log, in place."""

from __future__ import annotations

import pytest

from pytest_pd.plan.model import ReadyPlan, Role, ServicePlan
from pytest_pd.provision.launcher import mask_log
from pytest_pd.provision.local import secrets_of
from pytest_pd.secret import redact, secrets_in

SECRET = "hf_planted_0123456789"


@pytest.fixture
def log(tmp_path):
    return tmp_path / "decode-0.log"


def request(log, *secrets):
    return {"log": str(log), "secrets": list(secrets)}


def test_every_place_is_overwritten_and_nothing_moves(log):
    text = f"token {SECRET}\nagain {SECRET}{SECRET} end\n"
    log.write_text(text)

    end = mask_log(request(log, SECRET), 0)

    assert log.read_text() == text.replace(SECRET, "*" * len(SECRET))
    assert end == len(text)


def test_what_is_printed_later_is_found_from_where_it_stood(log):
    log.write_text("begin\n")
    offset = mask_log(request(log, SECRET), 0)
    with log.open("a") as file:
        file.write(f"{SECRET}\n")

    mask_log(request(log, SECRET), offset)

    assert SECRET not in log.read_text()


@pytest.mark.parametrize("cut", [1, 10, len(SECRET) - 1])
def test_a_secret_that_was_half_written_is_found_when_it_is_whole(log, cut):
    log.write_text(SECRET[:cut])
    offset = mask_log(request(log, SECRET), 0)
    with log.open("a") as file:
        file.write(SECRET[cut:] + "\n")

    mask_log(request(log, SECRET), offset)

    assert log.read_text() == "*" * len(SECRET) + "\n"


def test_a_log_that_was_set_aside_is_read_from_its_beginning(log):
    log.write_text("x" * 1000)
    offset = mask_log(request(log, SECRET), 0)
    log.write_text(f"new {SECRET}\n")

    mask_log(request(log, SECRET), offset)

    assert SECRET not in log.read_text()


def test_a_writer_that_appends_goes_on_behind_it(log):
    with log.open("ab", buffering=0) as writer:
        writer.write(SECRET.encode() + b"\n")
        mask_log(request(log, SECRET), 0)
        writer.write(b"after\n")

    assert log.read_text() == "*" * len(SECRET) + "\nafter\n"


@pytest.mark.parametrize("secrets", [(), (SECRET,)])
def test_a_log_that_is_away_is_no_error(log, secrets):
    assert mask_log(request(log, *secrets), 7) == 7


def test_what_a_plan_takes_from_the_host_is_secret_whatever_its_name(monkeypatch):
    monkeypatch.setenv("A_PLAIN_NAME", "plain-secret")
    service = ServicePlan(
        name="decode-0",
        role=Role.DECODE,
        node="node0",
        argv=("true",),
        log="logs/decode-0.log",
        ready=ReadyPlan("started", ""),
        env_from_host=("A_PLAIN_NAME",),
    )

    assert "plain-secret" in secrets_of(service)


def test_a_password_in_a_url_is_secret_in_any_variable():
    environ = {"INDEX": "https://reader:s3cretword@host/simple"}

    assert secrets_in(environ) == ("s3cretword",)
    assert "s3cretword" not in redact("with s3cretword alone", secrets_in(environ))


@pytest.mark.parametrize(
    "text",
    [
        "GET /v1/x?token=abcdef123",
        "https://h/x?a=1&api_key=abcdef123&b=2",
        "https://user:abcdef123@host/",
        "Authorization: Bearer abcdef123",
    ],
)
def test_tokens_are_found_by_where_they_stand(text):
    assert "abcdef123" not in redact(text, ())


def test_a_short_value_is_left_alone():
    assert secrets_in({"API_KEY": "1"}) == ()
