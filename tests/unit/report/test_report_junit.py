"""Shards are joined, a rerun's result counts, and a flaky test is not forgotten."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import MeasurementError
from pytest_pd.report.junit import merge_junit

BODIES = {
    "passed": "",
    "failed": '<failure message="tokens differ">trace</failure>',
    "error": '<error message="no node">trace</error>',
    "skipped": '<skipped message="no GPU"/>',
}


def shard(path, suite="pytest", **cases):
    body = "".join(
        f'<testcase classname="t" name="{name}" time="1.0">'
        f'<properties><property name="pd_topology" value="k2"/></properties>'
        f"{BODIES[how]}</testcase>"
        for name, how in cases.items()
    )
    path.write_text(
        f'<testsuites><testsuite name="{suite}" tests="{len(cases)}">{body}'
        "</testsuite></testsuites>"
    )
    return path


def cases_of(path):
    return {case.get("name"): case for case in ET.parse(path).iter("testcase")}


def properties(case):
    return {p.get("name"): p.get("value") for p in case.iter("property")}


def test_shards_are_joined_and_counted(tmp_path):
    files = [
        shard(tmp_path / "1.xml", "one", a="passed", b="skipped"),
        shard(tmp_path / "2.xml", "two", a="passed", c="failed"),
    ]

    found = merge_junit(files, tmp_path / "all.xml")

    assert (found.tests, found.bad, found.skipped, found.flaky) == (4, 1, 1, ())
    root = ET.parse(tmp_path / "all.xml").getroot()
    assert (root.get("tests"), root.get("failures")) == ("4", "1")
    assert [s.get("name") for s in root] == ["one", "two"]


@pytest.mark.parametrize("first", ["failed", "error"])
def test_rerun_counts_and_first_failure_is_kept(tmp_path, first):
    files = [
        shard(tmp_path / "1.xml", a=first, b="passed"),
        shard(tmp_path / "2.xml", a="passed"),
    ]

    found = merge_junit(files, tmp_path / "all.xml")

    case = cases_of(tmp_path / "all.xml")["a"]
    assert (found.tests, found.bad, found.flaky) == (2, 0, ("t::a",))
    assert list(case.iter("failure")) == []
    assert properties(case)["flaky"] == "true"
    assert properties(case)["first_failure"] in ("tokens differ", "no node")
    assert properties(case)["pd_topology"] == "k2"


def test_failure_that_stays_is_not_flaky(tmp_path):
    files = [shard(tmp_path / f"{i}.xml", a="failed") for i in range(2)]

    found = merge_junit(files, tmp_path / "all.xml")

    assert (found.tests, found.bad, found.flaky) == (1, 1, ())


def test_failure_that_is_skipped_later_is_not_called_green(tmp_path):
    files = [
        shard(tmp_path / "1.xml", a="failed"),
        shard(tmp_path / "2.xml", a="skipped"),
    ]

    assert merge_junit(files, tmp_path / "all.xml").flaky == ()


def test_later_failure_counts(tmp_path):
    files = [
        shard(tmp_path / "1.xml", a="passed"),
        shard(tmp_path / "2.xml", a="failed"),
    ]

    assert merge_junit(files, tmp_path / "all.xml").bad == 1


@pytest.mark.parametrize("named", ["first", "second"])
def test_call_and_teardown_of_one_test_are_one_case(tmp_path, named):
    props = '<properties><property name="pd_topology" value="k2"/></properties>'
    one, two = (props if which == named else "" for which in ("first", "second"))
    path = tmp_path / "1.xml"
    path.write_text(
        '<testsuite name="s">'
        f'<testcase classname="t" name="a">{one}{BODIES["failed"]}</testcase>'
        f'<testcase classname="t" name="a">{two}{BODIES["error"]}</testcase>'
        "</testsuite>"
    )

    found = merge_junit([path], tmp_path / "all.xml")

    (case,) = ET.parse(tmp_path / "all.xml").iter("testcase")
    assert (found.tests, found.bad) == (1, 1)
    assert [case.find(kind).get("message") for kind in ("failure", "error")] == [
        "tokens differ",
        "no node",
    ]
    assert properties(case) == {"pd_topology": "k2"}


def test_lone_suite_without_a_root_is_read(tmp_path):
    path = tmp_path / "1.xml"
    path.write_text(
        '<testsuite name="s"><testcase classname="t" name="a"/></testsuite>'
    )

    assert merge_junit([path], tmp_path / "all.xml").tests == 1


@pytest.mark.parametrize("text", ["", "<testsuites><testsuite", "<html/>"])
def test_torn_file_is_named_and_nothing_is_written(tmp_path, text):
    good = shard(tmp_path / "1.xml", a="passed")
    torn = tmp_path / "torn.xml"
    torn.write_text(text)

    with pytest.raises(MeasurementError, match=r"torn\.xml"):
        merge_junit([good, torn], tmp_path / "all.xml")
    assert not (tmp_path / "all.xml").exists()


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(MeasurementError, match="No JUnit file"):
        merge_junit([], tmp_path / "all.xml")


@pytest.mark.parametrize(("how", "code"), [("passed", 0), ("failed", 1)])
def test_command_exits_by_what_is_left(tmp_path, capsys, how, code):
    first = shard(tmp_path / "1.xml", a="failed")
    again = shard(tmp_path / "2.xml", a=how)

    out = str(tmp_path / "all.xml")
    assert main(["merge", str(first), str(again), "--out", out]) == code
    assert f"1 tests, {code} not green" in capsys.readouterr().out


def test_many_cases_are_merged(tmp_path):
    files = [
        shard(tmp_path / f"{i}.xml", f"s{i}", **{f"t{j}": "passed" for j in range(200)})
        for i in range(50)
    ]

    assert merge_junit(files, tmp_path / "all.xml").tests == 10_000


def test_files_without_a_test_are_not_green(tmp_path, capsys):
    out = str(tmp_path / "all.xml")

    assert main(["merge", str(shard(tmp_path / "1.xml")), "--out", out]) == 1
    assert "0 tests" in capsys.readouterr().out
