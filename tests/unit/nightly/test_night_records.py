"""What the pytest of a night writes down while it runs."""

from __future__ import annotations

import json

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
