"""Tests run once per topology; each topology comes up once and goes down once."""

from __future__ import annotations

import pytest

from pytest_pd.plugin.xdist import scope_of

TWO = ("--topology", "local_1p1d,local_2p1d")


def test_default_topology(project):
    project.suite()

    result = project.run("-v")

    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["*test_one[[]topo:local_1p1d[]] PASSED*"])
    assert project.ups() == project.downs() == ["local_1p1d"]


@pytest.mark.parametrize(
    "args",
    [
        pytest.param((), id="plain"),
        pytest.param(("-n", "2"), id="xdist"),
        pytest.param(("-n", "3"), id="more-workers-than-topologies"),
        pytest.param(("-n", "2", "--dist", "loadscope"), id="loadscope"),
        pytest.param(("-n", "2", "--dist", "loadfile"), id="loadfile"),
        pytest.param(("-n", "2", "--dist", "worksteal"), id="worksteal"),
        pytest.param(("--ff",), id="ff"),
        pytest.param(("-p", "no:cacheprovider"), id="no-cache"),
        pytest.param(("-p", "no:benchmark"), id="no-benchmark"),
        pytest.param(("-p", "no:xdist"), id="no-xdist"),
        pytest.param(("--import-mode=importlib",), id="importlib"),
    ],
)
def test_each_topology_once(project, args):
    project.suite()
    result = project.run(*TWO, *args)

    result.assert_outcomes(passed=6)
    assert sorted(project.ups()) == ["local_1p1d", "local_2p1d"]
    assert sorted(project.downs()) == ["local_1p1d", "local_2p1d"]


def test_shuffling_keeps_topologies_together(project):
    pytest.importorskip("pytest_randomly", reason="pip install pytest-randomly")
    project.suite()
    project.pytester.makeini("[pytest]\n")

    result = project.run(*TWO, "-p", "randomly", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=6)
    assert sorted(project.ups()) == ["local_1p1d", "local_2p1d"]


def test_failed_first_keeps_topologies_together(project):
    project.suite(
        """
        def test_a(deployment): pass
        def test_b(deployment): assert deployment.name != "local_2p1d"
        """
    )
    project.run(*TWO).assert_outcomes(passed=3, failed=1)

    project.run(*TWO, "--ff").assert_outcomes(passed=3, failed=1)

    assert sorted(project.ups()[2:]) == ["local_1p1d", "local_2p1d"]


def test_last_failed_brings_up_only_what_it_needs(project):
    project.suite(
        """
        def test_a(deployment): pass
        def test_b(deployment): assert deployment.name != "local_2p1d"
        """
    )
    project.run(*TWO)

    project.run(*TWO, "--lf").assert_outcomes(failed=1)

    assert project.ups()[2:] == ["local_2p1d"]


@pytest.mark.parametrize("stop", ["-x", "--maxfail=1"])
def test_stopping_early_takes_down(project, stop):
    project.suite(
        """
        def test_a(deployment): assert False
        def test_b(deployment): pass
        """
    )

    project.run(stop).assert_outcomes(failed=1)

    assert project.ups() == project.downs() == ["local_1p1d"]


def test_collect_only_brings_nothing_up_and_makes_nothing(project):
    project.suite()

    result = project.run("--co", "-q", *TWO)

    assert result.ret == 0
    assert project.ledger == []
    assert not (project.pytester.path / "runs").exists()


def test_tests_without_topology_do_not_bring_one_up(project):
    project.suite("def test_a(): pass")

    project.run().assert_outcomes(passed=1)

    assert project.ledger == []


def test_items_carry_the_hardware_mark(project):
    project.suite()

    project.run("-m", "cpu", "--topology", "local_1p1d").assert_outcomes(passed=3)


def test_plan_only_needs_no_deployment(project):
    project.suite("def test_a(topology): assert topology.name == 'local_1p1d'")

    project.run("--topology", "local_1p1d").assert_outcomes(passed=1)

    assert project.ledger == []


def test_bring_up_does_not_count_against_a_test_timeout(project):
    pytest.importorskip("pytest_timeout", reason="pip install pytest-timeout")
    project.suite("def test_a(deployment): pass")
    slow = project.pytester.path / "conftest.py"
    slow.write_text(
        slow.read_text().replace(
            'note(f"UP {name} {worker}")',
            'note(f"UP {name} {worker}"); import time; time.sleep(3)',
        )
    )

    project.run("--timeout=2").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("dist", "unit"),
    [
        ("load", "d/t.py::A::b[x@y]"),
        ("worksteal", "d/t.py::A::b[x@y]"),
        ("loadgroup", "d/t.py::A::b[x@y]"),
        ("loadscope", "d/t.py::A"),
        ("loadfile", "d/t.py"),
    ],
)
def test_tests_without_topology_are_dealt_as_asked(dist, unit):
    assert scope_of("d/t.py::A::b[x@y]", dist) == unit


def test_a_group_of_xdist_stays_together():
    assert scope_of("t.py::a[1]@g", "loadgroup") == "g"
