"""Only like is compared with like, and what differs is said."""

from __future__ import annotations

import json

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import MeasurementError
from pytest_pd.measure.ratio import Change
from pytest_pd.report.compare import compare
from pytest_pd.report.compare_page import compare_page
from pytest_pd.report.differences import differences, flatten
from pytest_pd.report.read import read_run
from tests.run_kit import PLAN, entry, passed, write_run

HERE = {"platform": "Linux"}
"""An environment: differences are looked for where both sides have one."""


def samples(scale=1.0):
    return [scale * (0.1 + i * 1e-5) for i in range(100)]


def make(path, scale=1.0, plan=PLAN, environment=HERE, **more):
    entries = [entry("ttft", samples(scale), **more)]
    return read_run(
        write_run(
            path, entries=entries, verdict=passed(), plan=plan, environment=environment
        )
    )


def test_slower_runs_are_worse(tmp_path):
    old = [make(tmp_path / f"a{i}") for i in range(4)]
    new = [make(tmp_path / f"b{i}", 1.5) for i in range(4)]

    (row,) = compare(old, new).rows

    assert row.change is Change.WORSE
    assert row.ratio.value == pytest.approx(1.5)
    assert (row.statistic, row.ratio.old_runs, row.ratio.new_runs) == ("p50", 4, 4)


def test_rehearsal_is_not_compared_with_a_real_run(tmp_path):
    real = make(tmp_path / "a")
    rehearsed = make(tmp_path / "b", mode="rehearsal")

    with pytest.raises(MeasurementError, match="real against rehearsal"):
        compare([real], [rehearsed])
    assert compare([real], [rehearsed], force=True).rows


def test_other_topology_of_the_same_name_is_refused(tmp_path):
    old = make(tmp_path / "a")
    new = make(tmp_path / "b", plan=PLAN | {"identity": "fff"})

    with pytest.raises(MeasurementError, match="abc123 against fff"):
        compare([old], [new])
    found = compare([old], [new], force=True)
    assert ("plan.identity", "abc123", "fff") in found.differences


def test_what_does_not_hold_is_not_compared(tmp_path):
    with pytest.raises(MeasurementError, match="no valid measurement in common"):
        compare([make(tmp_path / "a")], [make(tmp_path / "b", valid=False)])


def test_entries_of_one_side_are_counted(tmp_path):
    old = make(tmp_path / "a")
    both = [entry("ttft", samples()), entry("itl", samples())]
    new = read_run(write_run(tmp_path / "b", entries=both, verdict=passed()))

    found = compare([old], [new])

    assert len(found.only_new) == 1
    assert found.only_old == ()


def test_versions_differ_and_paths_do_not(tmp_path):
    def one(name, version):
        path = tmp_path / name
        argv = ["serve", str((path / "local_1p1d").resolve() / "kv")]
        services = [{"name": "decode-0", "role": "decode", "argv": argv}]
        plan = PLAN | {"services": services}
        versions = {"vllm": version}
        return make(path, plan=plan, versions=versions)

    old, new = one("a", "0.31"), one("b", "0.32")

    assert differences(list(old.topologies), list(new.topologies)) == [
        ("versions.vllm", "0.31", "0.32")
    ]


def test_service_of_one_side_is_one_line(tmp_path):
    more = [*PLAN["services"], {"name": "decode-1", "role": "decode", "node": "n1"}]
    old, new = (
        make(tmp_path / "a"),
        make(tmp_path / "b", plan=PLAN | {"services": more}),
    )

    assert differences(list(old.topologies), list(new.topologies)) == [
        ("service decode-1", "–", "decode on n1")
    ]


def test_nested_values_have_dotted_names():
    assert flatten("p", {"a": {"b": [1, 2]}, "s": [{"name": "x", "n": 1}]}) == {
        "p.a.b": "1 2",
        "p.s.x.name": "x",
        "p.s.x.n": "1",
    }


def test_command_prints_a_table_and_takes_globs(tmp_path, capsys):
    for name in ("a1", "a2", "a3"):
        make(tmp_path / name)
    make(tmp_path / "b", 2.0)

    words = ["compare", f"{tmp_path}/a*", str(tmp_path / "b"), "--out", str(tmp_path)]

    assert main(words) == 0
    out = capsys.readouterr().out
    assert "| worse | 2.000 |" in out
    assert "| 3 / 1 | p50 |" in out
    assert (tmp_path / "compare.md").read_text() in out + "\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x"], "One side was named"),
        (["none*", "none"], "names no folder"),
    ],
)
def test_command_refuses_in_one_message(words, message, capsys):
    assert main(["compare", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hardware": "gb200"}, "different hardware: h100 against gb200"),
        ({"endpoint": "/v1/chat/completions"}, "another load: endpoint"),
        ({"input_tokens_mean": 60.0}, "another load: input_tokens_mean 48.0"),
        ({"load": {"concurrency": 1, "arrivals": "poisson"}}, "arrivals closed"),
        ({"slo": {"ttft_ms": 2000}}, "another load: slo {'ttft_ms': 500}"),
    ],
)
def test_other_hardware_and_other_loads_are_refused(tmp_path, change, told):
    given = {"hardware": "h100", "endpoint": "/v1/completions"}
    given |= {"input_tokens_mean": 48.0, "slo": {"ttft_ms": 500}}
    old = make(tmp_path / "a", **given)
    new = make(tmp_path / "b", **{**given, **change})

    with pytest.raises(MeasurementError, match=told):
        compare([old], [new])
    assert compare([old], [new], force=True).rows


def test_any_run_of_a_side_may_be_of_another_topology(tmp_path):
    first = make(tmp_path / "a1", plan=PLAN | {"identity": "fff"})
    same = [make(tmp_path / name) for name in ("a2", "b")]

    with pytest.raises(MeasurementError, match="abc123/fff against abc123"):
        compare([first, same[0]], [same[1]])


def test_any_run_of_a_side_may_be_under_another_load(tmp_path):
    first = make(tmp_path / "a1", input_tokens_mean=24.0)
    same = [make(tmp_path / name, input_tokens_mean=48.0) for name in ("a2", "b")]

    with pytest.raises(MeasurementError, match="another load: input_tokens_mean"):
        compare([first, same[0]], [same[1]])


@pytest.mark.parametrize("names", [("r*", "r3"), ("r3", "r*")])
def test_a_run_of_the_other_side_is_left_out_of_a_glob(tmp_path, capsys, names):
    for number in range(4):
        make(tmp_path / f"r{number}")

    assert main(["compare", *(str(tmp_path / name) for name in names)]) == 0
    said = capsys.readouterr().out
    assert "and on the other side: r3." in said
    assert ("| 3 / 1 |" if names[1] == "r3" else "| 1 / 3 |") in said


def test_globs_with_the_same_runs_are_refused(tmp_path, capsys):
    make(tmp_path / "r1")

    assert main(["compare", f"{tmp_path}/r*", f"{tmp_path}/r*"]) == 2
    assert "All runs are in" in capsys.readouterr().err


def test_image_driver_and_clocks_are_told(tmp_path):
    def one(name, image, driver, clock):
        services = [{"name": "d", "role": "decode", "image": image}]
        gpus = {"0": {"sm_clock_mhz_min": clock, "sm_clock_mhz_max": 1980}}
        return make(
            tmp_path / name,
            plan=PLAN | {"services": services},
            environment={"driver": driver},
            instrument={"gpus": gpus, "engine": "kernel"},
        )

    old, new = one("a", "vllm:1", "550", 1980), one("b", "vllm:2", "560", 1200)

    assert compare([old], [new]).differences == (
        ("plan.services.d.image", "vllm:1", "vllm:2"),
        ("environment.driver", "550", "560"),
        ("GPU 0 clock MHz", "1980 to 1980", "1200 to 1980"),
    )


def test_topologies_are_told_apart_by_name(tmp_path):
    def one(name, first, second):
        path = write_run(tmp_path / name, environment=HERE | {"x": first})
        (path / "local_1p1d").rename(path / "b")
        again = write_run(tmp_path / f"{name}2", environment=HERE | {"x": second})
        (again / "local_1p1d").rename(path / "a")
        return list(read_run(path).topologies)

    assert differences(one("o", "1", "2"), one("n", "1", "3")) == [
        ("a: environment.x", "2", "3")
    ]


def test_benchmark_file_is_a_side(tmp_path, capsys):
    record = entry("ttft", samples()) | {"stats": {"data": samples()}}
    foreign = {"fullname": "tests/x.py::t", "stats": {}}
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"benchmarks": [foreign, record]}))
    make(tmp_path / "b", 2.0)

    assert main(["compare", str(old), str(tmp_path / "b")]) == 0
    assert "| worse | 2.000 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "is no pytest-benchmark file"),
        ("{", "is no pytest-benchmark file"),
        ('{"benchmarks": []}', "no entry with samples"),
    ],
)
def test_other_files_are_no_side(tmp_path, capsys, text, told):
    (tmp_path / "x.json").write_text(text)

    assert main(["compare", str(tmp_path / "x.json"), str(tmp_path)]) == 2
    assert told in capsys.readouterr().err


def test_page_tells_the_worst_first_and_escapes(tmp_path):
    both = [entry("ttft", samples()), entry("itl", samples())]
    slow = [entry("ttft", samples(2.0)), entry("itl", samples())]
    old, new = (
        read_run(write_run(tmp_path / n, entries=e, environment={"x": f"<{n}>"}))
        for n, e in (("a", both), ("b", slow))
    )

    page = compare_page([("<a>", "b", compare([old], [new]))], forced=True)

    assert "<a>" not in page
    assert 'class="verdict failed"' in page
    assert "Compared by force" in page
    assert page.index(">worse<") < page.index(">cannot tell<")
    assert "environment.x" in page
    assert page.count('class="bound"') == 3


def test_command_writes_a_page(tmp_path):
    for name in ("a", "b"):
        make(tmp_path / name)

    words = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]

    assert main([*words, "--out", str(tmp_path / "o"), "--title", "T"]) == 0
    assert "<h1>T</h1>" in (tmp_path / "o" / "compare.html").read_text()
