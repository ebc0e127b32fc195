"""Which variables hold a secret, and in which forms it is found again."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pd.report.outcome import TestOutcome
from pytest_pd.secret import is_secret, redact, redact_all, secrets_in

SECRET = "hf_planted0123456789abcdef"
HARD = "pla\"nt\\ed\n47'11é"
"""Written in another way by JSON, by ``repr`` and by ``ascii``."""


@pytest.mark.parametrize(
    "name",
    [
        "NIGHT_WEBHOOK",
        "SLACK_WEBHOOK_URL",
        "MYSQL_PWD",
        "SSHPASS",
        "DOCKER_AUTH_CONFIG",
        "COMPOSER_AUTH",
        "AUTH_HEADER",
    ],
)
def test_names_that_promise_a_secret(name):
    assert is_secret(name, "abcdef123")


@pytest.mark.parametrize(
    "name",
    [
        "PWD",
        "OLDPWD",
        "SSH_AUTH_SOCK",
        "AUTHOR",
        "GIT_AUTHOR_NAME",
        "XAUTHORITY",
        "COMPASS",
        "PROXY_BYPASS",
        "SSLKEYLOGFILE",
        "DOCKER_AUTH_CONFIG_FILE",
    ],
)
def test_names_of_harmless_variables(name):
    assert not is_secret(name, "abcdef123")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://ghp_abc0123456@host/x", "https://***@host/x"),
        ("git+https://reader@host/x", "git+https://***@host/x"),
        ("ssh://glpat-abc0123456@host/x", "ssh://***@host/x"),
        ("redis://:s3cretpass@host:6379/0", "redis://***@host:6379/0"),
        ("https://bob:s3cret/pa:ss@host/x", "https://***@host/x"),
        ("https://bob:s3cret@pass@host/x", "https://***@host/x"),
        ("http://bob:12345@10.0.0.1/x", "http://***@10.0.0.1/x"),
        ("http://bob:12345@7.example/x", "http://***@7.example/x"),
        ("http://bob:12345@1:80/x", "http://***@1:80/x"),
        ("at http://a:80,http://bob:s3cret/x@h", "at http://a:80,http://***@h"),
    ],
)
def test_passwords_and_tokens_in_urls_are_masked(text, left):
    assert redact(text, ()) == left
    assert redact(left, ()) == left


@pytest.mark.parametrize(
    "text",
    [
        "ssh://git@host/x",
        "user@host",
        "http://host:8000/npm/@scope/x",
        "http://127.0.0.1:8000 of me@host",
        "--prefill-url names http://10.0.0.1:8100@0 twice.",
        "http://[fd00::1]:8100@12, http://worker-0:80@3.",
        "http://[::1]:8000/v1/a@b",
        "docker://repo/image:tag@sha256:0123",
        "https://host/?mail=me@host",
        "file:///a:b/c@d",
        '{"url": "http://localhost", "mail": "me@host"}',
    ],
)
def test_harmless_urls_stay_as_they_are(text):
    assert redact(text, ()) == text


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("https://ghp_abc0123456@host", "ghp_abc0123456"),
        ("https://ghp_abc0123456:x-oauth-basic@host", "ghp_abc0123456"),
        ("redis://:s3cretpass@host", "s3cretpass"),
        ("https://bob:s3cret/pass@host", "s3cret/pass"),
        ("https://bob:s3cret%2Fpass@host", "s3cret/pass"),
        ("http://a:8000,http://bob:s3cretpass@h", "s3cretpass"),
    ],
)
def test_what_is_secret_of_a_url_is_found_alone(url, secret):
    assert secret in secrets_in({"ANY": url})


def test_the_name_of_a_user_is_none():
    assert secrets_in({"A": "https://jenkins@host", "B": "ssh://gituser@host"}) == ()


@pytest.mark.parametrize(
    "write",
    [
        str,
        json.dumps,
        lambda text: json.dumps(text, ensure_ascii=False),
        repr,
        ascii,
        lambda text: repr(f"both ' and \" {text}"),
    ],
)
def test_a_secret_is_found_however_it_is_written(write):
    text = redact(write(HARD), (HARD,))

    assert "***" in text
    assert [piece for piece in ("pla", "nt", "ed", "47", "11") if piece in text] == []


@given(st.text(min_size=6))
def test_no_secret_survives_json(secret):
    text = json.dumps({"a": [secret]})
    plain = json.dumps(secret)[1:-1]

    assert plain in ("*" * len(plain), '": ["') or plain not in redact(text, (secret,))


def test_lines_of_a_secret_are_masked_one_by_one():
    key = "-----BEGIN KEY-----\nMIIabcdef0123\nZZZyyy987\n-----END KEY-----\n"
    secrets = secrets_in({"SSH_KEY": key})

    text = redact("E   MIIabcdef0123\nE   ZZZyyy987\n", secrets)

    assert text == "E   ***\nE   ***\n"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"{{'HF_TOKEN': '{SECRET[:20]}...", "{'HF_TOKEN': '***..."),
        (f"log: {SECRET[:9]}… more", "log: ***… more"),
        (f"'a...{SECRET[-8:]}'", "'a...***'"),
        (f"{SECRET[:12]}...{SECRET[-12:]}", "***...***"),
        (f"{SECRET[:12]}......", "***......"),
        ("hf_plan... is short", "hf_plan... is short"),
        ("hf_planned... is another", "hf_planned... is another"),
    ],
)
def test_a_piece_beside_a_cut_is_masked(text, left):
    assert redact(text, (SECRET,)) == left


def test_cuts_cost_no_time():
    secrets = tuple(f"{n:04}{SECRET}" for n in range(50))

    text = redact("hf_planted ... " * 20_000, secrets)

    assert text == "hf_planted ... " * 20_000


def test_values_are_masked_before_they_are_escaped():
    data = {"a": [HARD, 1, None], HARD: (f"x {HARD}", True)}

    assert redact_all(data, (HARD,)) == {
        "a": ["***", 1, None],
        "***": ("x ***", True),
    }


def test_a_record_is_read_back_after_it_was_masked():
    told = TestOutcome("t", "a", "failed", "call", 0.5, reason=f"no {HARD}")

    line = json.dumps(redact_all(told.as_record(), (HARD,)))

    assert TestOutcome.from_record(json.loads(line)).reason == "no ***"


@pytest.mark.parametrize("word", ["x://", "http://a:80,", "http://a:b@c", "a://b@"])
def test_many_addresses_cost_no_time(word):
    began_s = time.monotonic()

    redact(f"{word * 50_000} me@host", ("abcdefgh",))

    assert time.monotonic() - began_s < 10.0
