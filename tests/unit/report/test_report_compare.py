"""Only like is compared with like, and what differs is said."""

from __future__ import annotations

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import MeasurementError
from pytest_pd.measure.ratio import Change
from pytest_pd.report.compare import compare, differences, flatten
from pytest_pd.report.read import read_run
from tests.run_kit import PLAN, entry, passed, write_run


def samples(scale=1.0):
    return [scale * (0.1 + i * 1e-5) for i in range(100)]


def make(path, scale=1.0, plan=PLAN, environment=None, **more):
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
        return make(path, plan=plan, environment={"versions": {"vllm": version}})

    old, new = one("a", "0.31"), one("b", "0.32")

    assert differences(list(old.topologies), list(new.topologies)) == [
        ("environment.versions.vllm", "0.31", "0.32")
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
