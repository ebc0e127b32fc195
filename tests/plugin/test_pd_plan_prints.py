"""``--pd-plan`` prints what would be started, without a cluster; starts nothing."""

import pytest

LINE = "k2_2p1d: 7 nodes, 24 GPUs, 6 endpoints"


def test_a_plan_needs_no_cluster_of_its_hardware(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--pd-plan", "--pd-topology", "k2_2p1d")

    result.stdout.fnmatch_lines([LINE, "SERVICE *", "note*cluster 'local' is cpu."])
    assert result.ret == 0
    assert not list(pytester.path.glob("runs"))


def test_without_it_the_hardware_is_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_one(topology): pass")

    result = pytester.runpytest_subprocess("--pd-topology", "k2_2p1d")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*'k2_2p1d' is for gb200, cluster 'local' has cpu*"])


def test_a_lock_file_is_a_topology(pytester: pytest.Pytester) -> None:
    from pytest_pd.cli import main

    lock = pytester.path / "plan.lock.yaml"
    assert main(["plan", "k2_2p1d", "--lock", str(lock)]) == 0

    result = pytester.runpytest_subprocess(
        "--pd-plan", "--pd-topology", str(lock), "--pd-cluster", str(lock)
    )

    result.stdout.fnmatch_lines([LINE])
    assert result.ret == 0
