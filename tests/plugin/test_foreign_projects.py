"""A project that has nothing to do with us does not notice the plugin."""

from __future__ import annotations

import pytest


@pytest.fixture
def foreign(pytester, monkeypatch):
    monkeypatch.delenv("PD_CLUSTER", raising=False)
    return pytester


@pytest.mark.parametrize("expression", ["h100", "cpu_bound", "not cpu"])
def test_marks_called_like_hardware_choose_no_topology(foreign, expression):
    foreign.makeini("[pytest]\nmarkers =\n  cpu_bound: slow\n")
    foreign.makepyfile(
        """
        import pytest

        @pytest.mark.cpu_bound
        @pytest.mark.h100
        def test_theirs(): pass
        """
    )

    result = foreign.runpytest_subprocess("-m", expression)

    result.assert_outcomes(passed=1)
    assert result.ret == 0


def test_their_fixture_called_topology_is_theirs(foreign):
    foreign.makeconftest(
        """
        import pytest

        @pytest.fixture
        def topology():
            return "ring"
        """
    )
    foreign.makepyfile("def test_theirs(topology): assert topology == 'ring'")

    foreign.runpytest_subprocess().assert_outcomes(passed=1)


def test_their_parameter_called_topology_is_theirs(foreign):
    foreign.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("topology", ["ring", "tree"])
        def test_theirs(topology): assert topology in ("ring", "tree")
        """
    )

    foreign.runpytest_subprocess().assert_outcomes(passed=2)
