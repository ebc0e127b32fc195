"""URLs of workers as recipes write them."""

from __future__ import annotations

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.proxy.worker import Address, parse_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://localhost:8100", Address("http://localhost:8100")),
        ("http://localhost:8100/", Address("http://localhost:8100")),
        ("http://localhost:8100/v1/completions", Address("http://localhost:8100")),
        ("http://h/v1/chat/completions/", Address("http://h")),
        ("http://h:1/v1", Address("http://h:1")),
        ("https://h:1/prefix/v1/completions", Address("https://h:1/prefix")),
        ("http://10.0.0.1:8087@3", Address("http://10.0.0.1:8087", 3)),
        ("http://h:1@0/v1/completions", Address("http://h:1", 0)),
        ("http://[::1]:8000", Address("http://[::1]:8000")),
    ],
)
def test_urls_with_and_without_the_endpoint(text, expected):
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "localhost:8000",
        "ftp://h:1",
        "http://",
        "http://h:1?x=1",
        "http://h:1@x",
        "",
        "http://a:99999",
        "http://a..b:1",
        "http://[1.1]:1",
    ],
)
def test_what_is_no_url_of_a_worker_is_refused(text):
    with pytest.raises(SpecError, match="is not the URL of a worker"):
        parse_address(text)


def test_credentials_are_refused_and_not_shown():
    with pytest.raises(SpecError) as caught:
        parse_address("http://user:hunter2@h:8000")

    assert "hunter2" not in str(caught.value)


def test_the_name_carries_the_rank():
    assert Address("http://h:1", 2).name == "http://h:1@2"
