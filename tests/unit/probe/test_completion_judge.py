"""Only a real token counts as one; everything else says why not."""

from __future__ import annotations

import json

import pytest

from pytest_pd.probe.completion import judge, one_token
from pytest_pd.probe.http import Answer
from tests.kit import free_ports


def answer(record, status=200):
    return Answer(status, json.dumps(record).encode())


@pytest.mark.parametrize(
    "record",
    [
        {"choices": [{"text": "x"}]},
        {"choices": [{"text": ""}], "usage": {"completion_tokens": 1}},
        {"choices": [{"text": " "}], "usage": None},
    ],
)
def test_a_token_is_one(record):
    assert judge(answer(record)) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (answer({"error": "no worker"}, 503), "HTTP 503.*no worker"),
        (answer({"choices": []}), "no choices"),
        (answer([]), "no choices"),
        (Answer(200, b"<html>"), "no choices"),
        (answer({"choices": [{"text": ""}]}), "without a token"),
    ],
)
def test_anything_else_says_why(given, said):
    import re

    assert re.search(said, judge(given))


def test_nobody_there_is_said():
    (port,) = free_ports(1)

    said = one_token(f"http://127.0.0.1:{port}", "m", salt="x")

    assert "connection refused" in said
