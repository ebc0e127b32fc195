"""Secrets are masked; entries are plain and finite; ids are stable."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pd.errors import MeasurementError
from pytest_pd.measure.measurement import Measurement
from pytest_pd.report.entry import make_entry
from pytest_pd.report.redact import redact, redact_environment, secrets_in

FILE = Path("somewhere/performance/test_sweep.py")


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "OPENAI_API_KEY",
        "VLLM_API_KEY",
        "DB_PASSWORD",
        "aws_secret_access_key",
    ],
)
def test_values_of_secret_names_are_secrets(name):
    assert secrets_in({name: "abcdef123"}) == ("abcdef123",)


def test_ordinary_and_short_values_are_none():
    assert secrets_in({"PATH": "/usr/bin", "TOKENIZERS": "true", "API_KEY": "x"}) == ()


def test_longer_secrets_are_masked_first():
    secrets = secrets_in({"A_TOKEN": "abcdefgh", "B_TOKEN": "abcdefghij"})

    assert redact("x abcdefghij y", secrets) == "x *** y"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("GET http://user:hunter2@host/x", "GET http://***@host/x"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer ***"),
        ("nothing here", "nothing here"),
    ],
)
def test_tokens_in_urls_and_headers_are_masked(text, left):
    assert redact(text, ()) == left


@given(st.text(), st.text(min_size=6))
def test_no_secret_survives(text, secret):
    assert secret not in redact(f"{text}{secret}{text}", (secret,)) or secret in "***"


def test_environment_keeps_names_and_masks_values():
    found = redact_environment({"HF_TOKEN": "hf_secret1", "URL": "at hf_secret1 now"})

    assert found == {"HF_TOKEN": "***", "URL": "at *** now"}


def test_entry_is_plain_json_and_named():
    made = make_entry(
        FILE,
        "test_closed[topo:local_1p1d-c4]",
        {"topology": "local_1p1d", "odd": object},
        Measurement("ttft", (0.1, 0.2, 0.3), extra={"goodput": 3.0}),
    )

    assert json.loads(json.dumps(made)) == made
    assert made["fullname"] == (
        "pd::performance/test_sweep::test_closed[local_1p1d-c4]::ttft"
    )
    assert made["param"] == "local_1p1d-c4"
    assert made["data"] == [0.1, 0.2, 0.3]
    assert made["extra_info"]["p50"] == 0.2
    assert made["extra_info"]["goodput"] == 3.0


@pytest.mark.parametrize("samples", [(), (math.nan,), (0.1, math.inf)])
def test_what_is_no_number_is_no_entry(samples):
    with pytest.raises(MeasurementError, match="'ttft'"):
        make_entry(FILE, "test_a", {}, Measurement("ttft", samples))


def test_percentiles_of_an_entry_are_samples():
    samples = (*(0.01 for _ in range(17)), 0.5, 0.9, 1.0)

    made = make_entry(FILE, "test_a", {}, Measurement("ttft", samples))

    found = made["extra_info"]
    assert (found["p50"], found["p90"], found["p99"]) == (0.01, 0.5, 1.0)


def test_percentiles_of_an_entry_are_of_all_samples_where_some_are_kept():
    known = {"p50": 0.1, "p90": 0.2, "p99": 0.3}

    made = make_entry(
        FILE,
        "test_a",
        {},
        Measurement("itl", (0.0, 9.0), extra={"percentiles_s": known}),
    )

    assert {name: made["extra_info"][name] for name in known} == known
