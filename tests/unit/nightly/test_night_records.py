"""What the pytest of a night writes down while it runs."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from pytest_pd.plugin.night import OUTCOMES, Record


def test_a_try_that_is_followed_up_is_no_result(tmp_path):
    record = Record(tmp_path)
    for outcome in ("rerun", "failed"):
        record.pytest_runtest_logreport(
            pytest.TestReport("s.py::a", ("s.py", 1, "a"), {}, outcome, None, "call")
        )

    lines = (tmp_path / OUTCOMES).read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines] == ["failed"]


def ended(name):
    place = ("s.py", 1, name)
    return pytest.TestReport(f"s.py::{name}", place, {}, "passed", None, "call")


def names(folder):
    found = []
    for line in (folder / OUTCOMES).read_text().splitlines():
        with suppress(ValueError):
            found.append(json.loads(line)["nodeid"])
    return found


def test_what_a_full_disk_did_not_take_comes_with_the_next_test(tmp_path, monkeypatch):
    """A torn line stays one that nobody can read; its result is written again."""
    record, opened = Record(tmp_path), Path.open

    def full(path, *words, **options):
        with opened(path, *words, **options) as file:
            file.write('{"nodeid": "s.py::b", "ver')
        raise OSError(28, "No space left on device")

    record.pytest_runtest_logreport(ended("a"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        record.pytest_runtest_logreport(ended("b"))
        record.pytest_runtest_logreport(ended("c"))
    assert names(tmp_path) == ["s.py::a"]

    record.pytest_runtest_logreport(ended("d"))
    assert names(tmp_path) == [f"s.py::{name}" for name in "abcd"]
