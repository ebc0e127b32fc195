"""Broken is told once, invalid is never green, silence is never green."""

from __future__ import annotations


def test_broken_topology_is_told_once_and_blocks_the_rest(project, monkeypatch):
    monkeypatch.setenv("FAKE_BROKEN", "local_1p1d")
    project.suite()

    result = project.run()

    assert result.ret == 1
    assert project.ups() == ["local_1p1d"]
    result.stdout.fnmatch_lines(
        [
            "*local_1p1d cannot start.*",
            "*try: do this*",
            "*see: some.log*",
            "*BLOCKED*",
            "*topology 'local_1p1d' broke before: local_1p1d cannot start.*",
            "*2 blocked*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert result.stdout.str().count("try: do this") == 1


def test_blocked_tests_run_again_with_last_failed(project, monkeypatch):
    project.suite()
    monkeypatch.setenv("FAKE_BROKEN", "local_1p1d")
    project.run()
    monkeypatch.delenv("FAKE_BROKEN")

    project.run("--lf").assert_outcomes(passed=3)


def test_death_between_tests_breaks_the_topology(project):
    project.suite(
        """
        from pathlib import Path

        def test_a(deployment): Path(f"dead-{deployment.name}").touch()
        def test_b(deployment): pass
        def test_c(deployment): pass
        """
    )

    result = project.run()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*exited with code 0*", "*1 blocked*"])


def test_invalid_is_a_failure_with_a_name(project):
    project.suite(
        """
        from pytest_pd.errors import InvalidRun

        def test_a(deployment):
            raise InvalidRun("rate was 3 of 10 req/s.", hint="use more shards")
        """
    )

    result = project.run()

    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*INVALID*", "*rate was 3 of 10 req/s.*", "*use more shards*", "*1 invalid*"]
    )
    result.stdout.no_fnmatch_line("*1 failed*")


def test_invalid_stops_with_exitfirst_and_comes_back_with_last_failed(project):
    project.suite(
        """
        from pytest_pd.errors import InvalidRun

        def test_a(deployment): raise InvalidRun("no.")
        def test_b(deployment): pass
        """
    )

    first = project.run("-x")
    again = project.run("--lf", "-v")

    first.stdout.no_fnmatch_line("*passed*")
    again.stdout.no_fnmatch_line("*test_b*PASSED*")
    again.stdout.fnmatch_lines(["*1 invalid*"])


def test_named_topology_without_a_test_is_not_green(project):
    project.suite("def test_a(): pass")

    result = project.run("--topology", "local_1p1d")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*'local_1p1d' reached no verdict*"])


def test_mistyped_mark_is_not_green(project):
    project.suite()

    result = project.run("--topology", "local_1p1d", "-m", "correctnes")

    assert result.ret != 0
    result.stdout.fnmatch_lines(["*reached no verdict*no test was selected*"])


def test_everything_skipped_is_not_green(project):
    project.suite(
        """
        import pytest
        def test_a(deployment): pytest.skip("not today")
        """
    )

    result = project.run("--topology", "local_1p1d")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*reached no verdict: 1 skipped*"])


def test_members_of_a_glob_may_be_skipped(project):
    project.suite(
        """
        import pytest
        def test_a(deployment):
            if deployment.name != "local_1p1d": pytest.skip("not today")
        """
    )

    assert project.run("--topology", "local_*").ret == 0


def test_silence_is_seen_under_xdist_too(project):
    project.suite(
        """
        import pytest
        def test_a(deployment): pytest.skip("not today")
        """
    )

    result = project.run("--topology", "local_1p1d", "-n", "2")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*reached no verdict*"])


def test_failing_teardown_does_not_hide_the_tests_failure(project, monkeypatch):
    monkeypatch.setenv("FAKE_STUCK", "local_1p1d")
    project.suite("def test_a(deployment): assert 1 == 2, 'my own failure'")

    result = project.run()

    result.stdout.fnmatch_lines(["*my own failure*"])
    result.stdout.fnmatch_lines(["*local_1p1d cannot be stopped.*"])
    result.assert_outcomes(failed=1, errors=1)


def test_levels_leave_out_and_count(project):
    project.suite(
        """
        import pytest
        def test_a(deployment): pass
        @pytest.mark.pd_level("standard")
        def test_b(deployment): pass
        """
    )

    result = project.run()

    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*1 tests left out by level*"])
    project.run("-n", "2").stdout.fnmatch_lines(["*1 tests left out by level*"])
    project.run("--pd-level", "standard").assert_outcomes(passed=2)


def test_unmet_need_is_a_skip_with_its_reason(project):
    project.suite(
        """
        import pytest
        @pytest.mark.pd_needs("disaggregated")
        def test_a(deployment): pass
        def test_b(deployment): pass
        """
    )

    result = project.run("--topology", "local_agg", "-rs")

    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["*'local_agg' has not: disaggregated*"])


def test_secret_in_a_failure_is_masked_everywhere(project, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    project.suite(
        """
        import os
        def test_a(deployment):
            print("the token is", os.environ["HF_TOKEN"])
            assert os.environ["HF_TOKEN"] == "x"
        """
    )

    result = project.run("--junitxml=out.xml", "-o", "junit_logging=all")

    assert "hf_abcdefghijklmnop" not in result.stdout.str()
    assert "hf_abcdefghijklmnop" not in (project.pytester.path / "out.xml").read_text()
    assert "***" in result.stdout.str()


def test_a_glob_of_which_nothing_ran_is_not_green(project):
    project.suite(
        """
        import pytest
        def test_a(deployment): pytest.skip("not today")
        """
    )

    result = project.run("--topology", "local_*p1d")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*'local_1p1d' reached no verdict*"])


def test_topology_with_a_dash_in_its_name_reaches_a_verdict(project):
    project.suite()
    (project.pytester.path / "mine.yaml").write_text(
        "name: my-own-1\nhardware: cpu\nmodel: {path: fixtures/models/tiny, "
        "served_name: tiny}\nengine: {kind: reference}\naggregated: {replicas: 1}\n"
    )

    result = project.run("--topology", "mine.yaml", "-n", "1")

    result.assert_outcomes(passed=3)
    assert result.ret == 0
