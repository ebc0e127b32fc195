"""A job that ends takes nothing with it: not run, or lost; never failed."""

from __future__ import annotations

import json

import pytest

from pytest_pd.plugin.timing import why_no_time

SHORT = """
from pathlib import Path

import pytest

def test_a(deployment): Path(f"left-{deployment.name}").write_text("100")
@pytest.mark.pd_takes_s(60)
def test_fits(deployment): pass
@pytest.mark.pd_takes_s(95)
def test_too_long(deployment): pass
"""


def test_what_cannot_end_in_time_is_not_begun(project):
    project.suite(SHORT)

    result = project.run("-rs")

    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(
        ["*not run: time limit (100 s of the job are left, 105 s are needed)*"]
    )


def test_what_took_long_before_is_not_begun_again(project):
    project.suite(
        """
        import time
        from pathlib import Path

        import pytest

        @pytest.mark.parametrize("point", [1, 2])
        def test_a(deployment, point):
            time.sleep(0.2)
            Path(f"left-{deployment.name}").write_text("10.1")
        """
    )

    project.run().assert_outcomes(passed=1, skipped=1)


def test_a_mark_without_seconds_is_refused(project):
    project.suite(
        """
        import pytest

        @pytest.mark.pd_takes_s("long")
        def test_a(deployment): pass
        """
    )

    result = project.run()

    assert result.ret != 0
    result.stdout.fnmatch_lines(["*pd_takes_s takes seconds, not ('long',)*"])


def test_a_failure_of_lost_machines_is_no_failure_of_the_content(project):
    project.suite(
        """
        from pathlib import Path

        def test_a(deployment):
            Path(f"lost-{deployment.name}").touch()
            raise ConnectionError("no answer")

        def test_b(deployment): pass
        """
    )

    result = project.run()

    result.stdout.fnmatch_lines(["*Node n03 of local_1p1d is gone.*", "*2 blocked*"])
    (path,) = project.pytester.path.glob("runs/*/results.jsonl")
    found = [json.loads(line)["verdict"] for line in path.read_text().splitlines()]
    assert found == ["blocked", "blocked"]


def test_a_failure_with_all_machines_up_stays_one(project):
    project.suite("def test_a(deployment): assert False")

    project.run().assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("left_s", "needed_s", "runs"),
    [(None, 1e9, True), (30.0, 30.0, True), (29.0, 30.0, False), (-5.0, 10.0, False)],
)
def test_only_a_limit_that_is_too_near_stops_a_test(left_s, needed_s, runs):
    assert (why_no_time(left_s, needed_s) == "") is runs
