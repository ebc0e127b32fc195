"""One live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import argparse
import io

import pytest

from pytest_pd.provision.duration import duration_s
from pytest_pd.provision.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(stream, *steps):
    now = [0.0]
    line = ProgressLine(stream, clock=lambda: now[0])
    for now[0], text in steps:
        line(text)
    return line


def test_a_plain_stream_gets_a_line_when_the_state_changes():
    stream = io.StringIO()
    show(stream, (0, "0/2 ready; a 0 s"), (1, "0/2 ready; a 1 s"), (2, "1/2 ready; b"))

    assert stream.getvalue().splitlines() == ["0/2 ready; a 0 s", "1/2 ready; b"]


def test_a_plain_stream_gets_a_line_now_and_then_while_nothing_changes():
    stream = io.StringIO()
    show(stream, *((second, f"0/2 ready; a {second} s") for second in range(25)))

    assert len(stream.getvalue().splitlines()) == 3


def test_a_terminal_rewrites_one_line_and_ends_clean():
    stream = Terminal()
    show(stream, (0, "0/2 ready; a 0 s"), (1, "0/2 ready; a 1 s")).close()

    assert "\n" not in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[2K")


def test_a_terminal_is_not_flooded():
    stream = Terminal()
    show(stream, *((n / 1000, "0/2 ready; a 0 s") for n in range(100)))

    assert stream.getvalue().count("ready") == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("30s", 30), ("1h30m", 5400), ("2d", 172800), ("1.5h", 5400)],
)
def test_durations_are_read(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "h", "4 hours", "-1h", "1x", "1h-"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="no duration"):
        duration_s(text)
