"""Prometheus pages of any dialect give their counters, and nothing raises."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pd.probe.metrics import (
    increase,
    parse_line,
    parse_page,
    parse_query,
    was_reset,
)

VLLM = """\
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 915.0
vllm:prompt_tokens_total{engine="1",model_name="tiny"} 85.0
vllm:nixl_bytes_transferred_sum{engine="0"} 1.72437504e+09
vllm:cache{a="1",b="x"} NaN
process_start_time_seconds 1.79525329727e+09
"""


def total(text: str, query: str) -> float | None:
    return parse_page(text).total(query)


def test_labels_that_are_not_named_are_summed():
    assert total(VLLM, "vllm:prompt_tokens_total") == 1000


def test_a_label_selects_its_series():
    assert total(VLLM, 'vllm:prompt_tokens_total{engine="1"}') == 85


def test_exponents_are_numbers():
    assert total(VLLM, "vllm:nixl_bytes_transferred_sum") == 1724375040


def test_an_absent_metric_is_none_and_not_zero():
    assert total(VLLM, "vllm:absent") is None


def test_nan_is_not_yet_observed():
    assert total(VLLM, "vllm:cache") is None


def test_a_page_that_is_no_page_has_nothing():
    page = parse_page("<html>\nnot found\n</html>")

    assert page.values == {}
    assert len(page.skipped) == 3


@pytest.mark.parametrize(
    ("line", "labels"),
    [
        ('a{b="x,y"} 1', {("b", "x,y")}),
        ('a{b="x}y"} 1', {("b", "x}y")}),
        (r'a{b="say \"hi\"\n\\"} 1', {("b", 'say "hi"\n\\')}),
        ('a{b="1", c="2",} 1', {("b", "1"), ("c", "2")}),
        ("a{} 1", set()),
        ("a 1", set()),
    ],
)
def test_labels_are_read_as_the_format_says(line, labels):
    series = parse_line(line)

    assert series is not None
    assert series.labels == labels
    assert series.value == 1


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("a 1 1700000000000", 1.0),
        ('a 5 # {trace_id="x"} 0.5', 5.0),
        ("a +Inf", math.inf),
        ("a\t2", 2.0),
    ],
)
def test_timestamps_and_exemplars_are_no_values(line, value):
    series = parse_line(line)

    assert series is not None
    assert series.value == value


@pytest.mark.parametrize("line", ["a", "a{", 'a{b="x" 1', "a{b=x} 1", "1 2", "a x", ""])
def test_what_is_no_metric_is_skipped(line):
    assert parse_line(line) is None


@given(st.text())
def test_no_text_makes_the_parser_raise(text):
    parse_page(text)


@given(st.text(max_size=30))
def test_any_label_value_survives_its_escaping(value):
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    series = parse_line(f'a{{b="{escaped}"}} 1')

    assert series is not None
    assert series.labels == {("b", value)}


def test_a_query_that_is_no_metric_is_refused():
    with pytest.raises(ValueError, match="is not name"):
        parse_query("{a=")


def test_a_counter_grows_by_its_difference():
    assert increase(parse_page("a 3"), parse_page("a 10"), "a") == 7


def test_a_series_that_is_new_began_at_zero():
    before, after = parse_page('a{w="1"} 3'), parse_page('a{w="1"} 3\na{w="2"} 4')

    assert increase(before, after, "a") == 4


def test_a_restarted_process_has_grown_by_what_it_shows():
    before, after = parse_page("a 100"), parse_page("a 4")

    assert increase(before, after, "a") == 4
    assert was_reset(before, after, "a")


def test_a_counter_that_stands_was_not_reset():
    assert not was_reset(parse_page("a 4"), parse_page("a 4"), "a")


def test_growth_of_an_absent_metric_is_unknown():
    assert increase(parse_page("b 1"), parse_page("b 2"), "a") is None


def test_totals_by_label_leave_out_series_without_it():
    page = parse_page('a{w="x"} 1\na{w="x",z="1"} 2\na{w="y"} 4\na 8')

    assert page.label_totals("a", "w") == {"x": 3, "y": 4}
