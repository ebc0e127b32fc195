"""What the user typed wrong is one message and exit code 4, never a traceback."""

from __future__ import annotations

import pytest


def refused(result, *lines):
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str() + result.stdout.str()
    assert "Traceback" not in text
    for line in lines:
        assert line in text


def test_unknown_topology_names_the_nearest(project):
    project.suite()

    refused(project.run("--topology", "local_1p2d"), "'local_1p2d'", "local_1p1d")


def test_unknown_cluster(project):
    project.suite()

    refused(project.run("--cluster", "nowhere"), "'nowhere'")


def test_unknown_key_has_file_line_and_nearest_key(project):
    project.suite()
    (project.pytester.path / "mine.yaml").write_text(
        "name: mine\nhardware: cpu\nmodel: {path: fixtures/models/tiny, "
        "served_name: tiny}\nengine: {kind: reference}\naggregted: {replicas: 1}\n"
    )

    refused(
        project.run("--topology", "mine.yaml"),
        "mine.yaml",
        "5",
        "aggregted",
        "aggregated",
    )


def test_gpu_topology_on_this_machine_says_what_to_do(project):
    project.suite()
    (project.pytester.path / "big.yaml").write_text(
        "name: big\nhardware: gb200\nmodel: {path: /models/x, served_name: x}\n"
        "engine: {kind: reference}\naggregated: {replicas: 1}\n"
    )

    refused(project.run("--topology", "big.yaml"), "gb200", "--cluster", "--rehearse")


def test_workers_do_not_repeat_a_usage_error(project):
    project.suite()

    result = project.run("--topology", "local_1p2d", "-n", "2")

    refused(result, "'local_1p2d'")
    assert result.stderr.str().count("is not known") == 1


def test_unknown_cluster_in_the_environment(project, monkeypatch):
    project.suite()
    monkeypatch.setenv("PD_CLUSTER", "nowhere")

    refused(project.run(), "'nowhere'", "local")


def test_unknown_cluster_in_the_environment_is_told_by_workers(project, monkeypatch):
    project.suite()
    monkeypatch.setenv("PD_CLUSTER", "nowhere")

    result = project.run("-n", "1")

    assert result.ret != 0
    result.stdout.fnmatch_lines(["*'nowhere' is not known*"])
    result.stdout.no_fnmatch_line("*choice.py*")


def test_wrong_file_met_while_collecting_is_one_message(project):
    project.suite(
        """
        from pytest_pd.errors import SpecError

        raise SpecError("workload 'nope' is not known.", hint="name another")
        """
    )

    refused(project.run(), "workload 'nope' is not known.", "name another")


def test_hardware_that_is_not_here(project):
    project.suite()

    refused(project.run("-m", "mi300x"), "mi300x", "--cluster", "--rehearse")


def test_mark_expression_that_ends_too_soon(project):
    project.suite()

    result = project.run("-m", "h100 and")

    refused(result, "-m", "h100 and", "end of input")
    result.stdout.no_fnmatch_line("*SyntaxError*")


def test_keep_that_swallowed_the_next_word(project):
    project.suite()

    refused(
        project.run("--topology", "local_1p1d", "--pd-keep", "test_suite.py"),
        "'test_suite.py' is no duration",
        "--pd-keep=1h",
    )


def test_several_clusters_where_one_is_wanted(project):
    project.suite()

    refused(project.run("--cluster", "*_slurm"), "2 clusters", "gb200_slurm")


def test_two_files_with_one_name(project):
    project.suite()
    for name in ("one", "two"):
        (project.pytester.path / f"{name}.yaml").write_text(
            "name: same\nhardware: cpu\nmodel: {path: fixtures/models/tiny, "
            "served_name: tiny}\nengine: {kind: reference}\naggregated: {replicas: 1}\n"
        )

    refused(
        project.run("--topology", "one.yaml,two.yaml"), "'same'", "one.yaml", "two.yaml"
    )


@pytest.mark.parametrize(
    "left", ["verdict.json", "results.jsonl", "other_topology/manifest.json"]
)
def test_run_directory_of_another_run_is_not_touched(project, left):
    project.suite("def test_a(deployment): pass")
    file = project.pytester.path / "old" / left
    file.parent.mkdir(parents=True)
    file.write_text("{}")

    refused(project.run("--run-dir", "old"), left, "--run-dir")

    kept = [path for path in file.parents[0].rglob("*") if path.is_file()]
    assert kept == [file]
    assert file.read_text() == "{}"


def test_attached_run_without_the_named_topology(project):
    project.suite()
    folder = project.pytester.path / "runs" / "20260101T000000Z-abcdefgh" / "mine"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text('{"run_id": "abcdefgh", "topology": "mine"}')

    refused(
        project.run("--attach", "abcdefgh", "--topology", "other"), "'other'", "mine"
    )


def test_misspelt_need_is_no_silent_skip(project):
    project.suite(
        """
        import pytest

        @pytest.mark.pd_needs("disagregated")
        def test_a(deployment): pass
        """
    )

    refused(project.run(), "'disagregated'", "disaggregated", "test_a")


def test_deployment_asked_for_in_a_running_test_is_told(project):
    project.suite("def test_a(request): request.getfixturevalue('deployment')")

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*name `deployment` or `topology` among the test's*"])


def test_topology_alone_does_not_bring_a_deployment(project):
    project.suite(
        "def test_a(request, topology): request.getfixturevalue('deployment')"
    )

    result = project.run()

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*'local_1p1d' is not up for this test*"])


def test_empty_topology_is_told(project):
    project.suite()

    refused(project.run("--topology", ""), "No topology is named.")


def test_broken_link_among_the_topologies_is_in_nobodys_way(project):
    project.suite()
    folder = project.pytester.path / "fixtures" / "topologies"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".#mine.yaml").symlink_to("me@host.4711:1")

    refused(project.run("--topology", "local_1p2d"), "'local_1p2d'", "local_1p1d")


def test_url_that_is_none_is_told(project):
    project.suite()

    refused(project.run("--attach", "http://127.0.0.1:99999"), "Nothing to attach to")


def test_run_folder_of_an_unknown_user_is_told(project):
    project.suite()

    refused(project.run("--run-dir", "~nosuchuser/runs"), "'~nosuchuser/runs'")
