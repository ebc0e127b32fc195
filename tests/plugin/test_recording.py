"""Measurements become pytest-benchmark entries, the same with and without xdist."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SUITE = """
import pytest
from pytest_pd.measure.measurement import Measurement

@pytest.mark.parametrize("concurrency", [1, 2])
def test_latency(deployment, record, concurrency):
    samples = tuple(0.01 * concurrency + i / 1000 for i in range(50))
    record([
        Measurement("ttft", samples, extra={"tok_per_s": 100.0}),
        Measurement("itl", tuple(s / 10 for s in samples)),
    ])

def test_other(deployment): pass
"""


def entries(project, name="out.json"):
    return json.loads((project.pytester.path / name).read_text())["benchmarks"]


def test_samples_reach_pytest_benchmark_unchanged(project):
    project.suite(SUITE)

    project.run("--benchmark-json=out.json").assert_outcomes(passed=3)

    first = entries(project)[0]
    assert first["stats"]["data"] == [0.01 + i / 1000 for i in range(50)]
    assert first["group"] == "ttft"
    assert first["extra_info"]["unit"] == "s"
    assert first["extra_info"]["p50"] == pytest.approx(0.034)
    assert first["extra_info"]["tok_per_s"] == 100.0


def test_id_does_not_depend_on_rootdir(project):
    project.suite(SUITE)
    folder = project.pytester.mkdir("performance")
    (project.pytester.path / "test_suite.py").rename(folder / "test_sweep.py")

    project.run("--benchmark-json=one.json")
    project.run("--benchmark-json=two.json", f"--rootdir={folder}")

    ids = [e["fullname"] for e in entries(project, "one.json")]
    assert ids[0] == "pd::performance/test_sweep::test_latency[local_1p1d-1]::ttft"
    assert ids == [e["fullname"] for e in entries(project, "two.json")]


def test_xdist_records_the_same(project):
    project.suite(SUITE)
    two = ("--topology", "local_1p1d,local_2p1d")

    project.run("--benchmark-json=plain.json", *two)
    project.run("--benchmark-json=xdist.json", *two, "-n", "2")

    def plain(name):
        found = [(e["fullname"], e["stats"]["data"]) for e in entries(project, name)]
        return sorted(found)

    assert len(plain("plain.json")) == 8
    assert plain("plain.json") == plain("xdist.json")


def test_failed_test_leaves_no_entry(project):
    project.suite(
        """
        import pytest
        from pytest_pd.measure.measurement import Measurement

        @pytest.mark.parametrize("good", [True, False])
        def test_a(deployment, record, good):
            record([Measurement("ttft", (1.0, 2.0))])
            assert good
        """
    )

    project.run("--benchmark-json=out.json")

    assert [e["params"]["good"] for e in entries(project)] == [True]


def test_compare_works_right_after_a_run(project):
    project.suite(SUITE)
    project.pytester.makeini("[pytest]\npd_save = true\n")
    project.run("--benchmark-quiet")

    result = subprocess.run(
        [sys.executable, "-m", "pytest_benchmark", "compare"],
        cwd=project.pytester.path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "test_latency[local_1p1d-2]::ttft" in result.stdout


def test_only_runs_recording_tests(project):
    project.suite(SUITE)

    project.run("--benchmark-only").assert_outcomes(passed=2, skipped=1)


@pytest.mark.parametrize("option", ["--benchmark-skip", "--benchmark-disable"])
def test_switches_keep_nothing(project, option):
    project.suite(SUITE)

    result = project.run(option, "--benchmark-json=out.json")

    assert result.ret == 0
    file = project.pytester.path / "out.json"
    assert not file.exists() or not file.read_text()


def test_compare_fail_gates(project):
    project.suite(SUITE)
    project.pytester.makeini("[pytest]\npd_save = true\n")
    project.run()
    project.suite(SUITE.replace("0.01 * concurrency", "0.05 * concurrency"))

    result = project.run("--benchmark-compare", "--benchmark-compare-fail=mean:20%")

    assert result.ret == 1
    assert "Performance has regressed" in result.stderr.str()


def test_without_pytest_benchmark_the_tests_still_run(project):
    project.suite(SUITE)

    project.run("-p", "no:benchmark").assert_outcomes(passed=3)


def test_a_metric_without_samples_is_an_error(project):
    project.suite(
        """
        from pytest_pd.measure.measurement import Measurement
        def test_a(deployment, record): record([Measurement("ttft", ())])
        """
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*metric 'ttft' has 0 samples*"])


def test_junit_carries_verdict_topology_run_and_logs(project):
    from junitparser import JUnitXml
    from junitparser.junitparser import Properties

    project.suite(SUITE)
    project.run("--junitxml=out.xml", "-n", "2").assert_outcomes(passed=3)

    (suite,) = JUnitXml.fromfile(str(project.pytester.path / "out.xml"))
    for case in suite:
        properties = {p.name: p.value for p in case.child(Properties)}
        assert properties["pd_verdict"] == "passed"
        assert properties["pd_topology"] == "local_1p1d"
        assert properties["pd_run_id"]
        assert properties["pd_logs"].endswith("local_1p1d/logs")


def test_a_rerun_records_once(project):
    project.suite(SUITE)
    conftest = project.pytester.path / "conftest.py"
    conftest.write_text(
        conftest.read_text()
        + """

def pytest_runtest_protocol(item, nextitem):
    # what pytest-rerunfailures does after a failure
    from _pytest.runner import runtestprotocol

    runtestprotocol(item, log=False, nextitem=nextitem)
    item._initrequest()
    runtestprotocol(item, nextitem=nextitem)
    return True
"""
    )

    project.run("--benchmark-json=out.json")

    names = [entry["fullname"] for entry in entries(project)]
    assert len(names) == len(set(names)) > 0
