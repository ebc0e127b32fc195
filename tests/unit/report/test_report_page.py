"""The page tells the verdict first, needs nothing but itself, and escapes all."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from pytest_pd.report.chart import Axis, Plot, Series
from pytest_pd.report.page import make_page
from pytest_pd.report.picture import draw_topology
from pytest_pd.report.plots import all_plots, steps
from pytest_pd.report.points import points_of
from pytest_pd.report.read import read_run
from pytest_pd.report.summary import summary_markdown
from pytest_pd.report.svg import Scale, linear_ticks, plot
from tests.run_kit import PLAN, entry, outcome, passed, write_run

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Checker(HTMLParser):
    """Collects tags and links, and notes tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(page):
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker.tags


def sweep_entries(**more):
    entries = []
    for streams in (1, 4, 16):
        given = {"streams": streams, **more}
        entries += [
            entry("ttft", [0.01 * streams, 0.02 * streams], **given),
            entry("itl", [0.001 * streams, 0.002], **given),
            entry("tpot", [0.002], tokens_per_s_per_user=500 / streams, **given),
            entry("e2e", [0.1 * streams], **given),
            entry("output_token_time", [1e-3], tokens_per_s=100.0 * streams, **given),
        ]
    return entries


def page_of(path, **more):
    run = read_run(write_run(path / "r1", **more))
    return make_page([run], path / "r1")


def test_page_is_well_formed_and_needs_nothing_else(tmp_path):
    tags = check(page_of(tmp_path, entries=sweep_entries(), verdict=passed()))

    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe"}
    links = [a["href"] for tag, a in tags if tag == "a"]
    assert links == ["#figures", "local_1p1d/logs/decode-0.log"]
    assert (tmp_path / "r1" / links[1]).is_file()


def test_every_drawing_has_words_for_those_who_cannot_see_it(tmp_path):
    tags = check(page_of(tmp_path, entries=sweep_entries(), verdict=passed()))

    svgs = [a for tag, a in tags if tag == "svg"]
    assert len(svgs) > 8
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in svgs)
    assert dict(tags)["html"] == {"lang": "en"}
    assert all("scope" in a for tag, a in tags if tag == "th")


def test_reasons_stand_before_any_figure_and_are_escaped(tmp_path):
    page = page_of(
        tmp_path,
        entries=sweep_entries(),
        outcomes=[outcome("invalid", reason="<script>alert(1)</script> rate missed")],
        verdict=passed(1, invalid=1),
    )

    assert "<script" not in page
    assert page.index("rate missed") < page.index('id="figures"')
    assert 'class="verdict invalid"' in page


def test_rehearsal_is_marked_all_over(tmp_path):
    plan = PLAN | {"rehearsal": True}

    page = page_of(tmp_path, plan=plan, entries=sweep_entries(), verdict=passed())

    assert "<body class=rehearsal>" in page
    assert page.index("No figure here says anything") < page.index('id="figures"')
    assert (
        "banner" not in page_of(tmp_path / "real", verdict=passed()).split("</style")[1]
    )


def test_killed_run_has_a_page(tmp_path):
    page = page_of(tmp_path, entries=sweep_entries(), outcomes=[outcome("passed")])

    assert "unfinished" in page
    check(page)


def test_run_without_a_plan_has_a_page(tmp_path):
    path = write_run(tmp_path / "r1", verdict={"topologies": {"x": {"error": 1}}})
    (path / "local_1p1d" / "plan.json").unlink()

    page = make_page([read_run(path)], path)

    assert "bring-up did not get that far" in page
    check(page)


def test_what_does_not_hold_is_in_the_table_and_in_no_plot(tmp_path):
    coarse = entry("ttft", [9.0], streams=64, valid=False, reasons=["too coarse"])
    entries = [*sweep_entries(), coarse]
    run = read_run(write_run(tmp_path / "r1", entries=entries, verdict=passed()))

    drawn = {
        x for p in all_plots(points_of([run])) for s in p.series for x, _ in s.points
    }

    assert 64 not in drawn
    assert "9.00 s" in make_page([run], tmp_path)


def test_a_bound_is_told_as_one(tmp_path):
    given = {"load": {}, "point": "", "unit": "s/request"}
    figures = [entry("goodput_time", [0.004], is_bound=True, **given)]

    page = page_of(tmp_path, entries=figures, verdict=passed())

    assert "0.004 s/request or less" in page


def test_two_runs_share_one_pareto(tmp_path):
    runs = [
        read_run(write_run(tmp_path / name, entries=sweep_entries(), verdict=passed()))
        for name in ("r1", "r2")
    ]

    plots = {p.name: p for p in all_plots(points_of(runs), several_runs=True)}

    assert [s.name for s in plots["pareto"].series] == [
        "r1 local_1p1d",
        "r2 local_1p1d",
    ]
    assert plots["pareto"].series[0].points[0] == (31.25, 800.0)
    check(make_page(runs, tmp_path))


def test_pareto_is_per_gpu_where_there_are_gpus(tmp_path):
    plan = PLAN | {"nodes": [{"gpus_used": 4}]}
    path = write_run(tmp_path / "r1", entries=sweep_entries(), plan=plan)

    (pareto,) = [
        p for p in all_plots(points_of([read_run(path)])) if p.name == "pareto"
    ]

    assert pareto.y.label == "tokens/s per GPU"
    assert pareto.series[0].points[0] == (31.25, 400.0)


def test_topology_names_roles_gpus_and_kv_path():
    services = [
        {"name": f"prefill-{i}", "role": "prefill", "node": f"n{i}", "gpu_ids": [0, 1]}
        for i in range(3)
    ]
    services.append({"name": "decode-0", "role": "decode", "node": "n3", "gpu_ids": []})

    drawn = draw_topology({"services": services, "expected": {"transfer": "pull"}})

    ET.fromstring(drawn)
    assert "3 × prefill" in drawn
    assert "3 nodes, 6 GPUs" in drawn
    assert "KV: pull" in drawn


def test_aggregated_topology_has_no_kv_path():
    drawn = draw_topology(
        {
            "services": [{"name": "a", "role": "aggregated", "node": "n0"}],
            "expected": {"transfer": "none"},
        }
    )

    assert 'class="kv"' not in drawn


def test_cdf_is_thinned_and_keeps_the_last_sample():
    found = steps([i / 1000 for i in range(1, 2001)])

    assert len(found) <= 122
    assert found[-1] == (2000.0, 1.0)
    assert [share for _, share in found] == sorted(share for _, share in found)


@pytest.mark.parametrize("is_log", [True, False])
@pytest.mark.parametrize("value", [0.003, 1.0, 12345.0])
def test_plot_of_a_single_point_is_finite(is_log, value):
    axis = Axis("x", is_log=is_log)

    drawn = plot(Plot("p", "t", axis, axis, (Series("one", ((value, value),)),)))

    ET.fromstring(drawn)
    numbers = re.findall(r'd="M([\d.]+) ([\d.]+)', drawn)
    assert all(0 <= float(a) <= 640 and 0 <= float(b) <= 320 for a, b in numbers)


def test_plot_leaves_out_what_a_logarithm_cannot_show():
    x, y = Axis("x"), Axis("y", is_log=True)

    assert plot(Plot("p", "t", x, y, (Series("zero", ((1.0, 0.0),)),))) == ""


def test_scale_maps_ends_to_ends():
    scale = Scale(1.0, 100.0, 0.0, 200.0, is_log=True)

    assert (scale.px(1.0), scale.px(10.0), scale.px(100.0)) == (0.0, 100.0, 200.0)


def test_ticks_are_round():
    assert linear_ticks(0.0, 10.0) == [0, 2, 4, 6, 8, 10]
    assert linear_ticks(0.0, 0.037) == [0, 0.01, 0.02, 0.03]


def test_names_of_lines_are_escaped():
    drawn = plot(
        Plot("p", "a & b", Axis("x"), Axis("y"), (Series("<b>", ((1.0, 1.0),)),))
    )

    assert "<b>" not in drawn
    ET.fromstring(drawn)


GATED = ("worse: s/t[c4]::ttft is 1.3 of 5 baseline run(s)", "passed: s/t[c1]::ttft")


@pytest.mark.parametrize("word", ["passed", "worse"])
def test_what_the_gate_said_is_told(tmp_path, word):
    told = {"gate": word, "gate_lines": [*GATED, f"gate says {word}"]}
    verdict = passed() | told | {"exit_status": int(word == "worse")}
    run = read_run(write_run(tmp_path, entries=sweep_entries(), verdict=verdict))

    page, summary = make_page([run], tmp_path), summary_markdown([run])

    check(page)
    assert "is 1.3 of 5 baseline run(s)" in page
    assert f"gate says {word}" in page
    assert (f"<summary>gate says {word}" in page) is (word == "passed")
    assert f"**gate says {word}**" in summary
    assert "- worse: s/t[c4]::ttft" in summary
    assert "passed: s/t[c1]::ttft" not in summary
    assert (
        ("(gate: worse)" in page) is ("(gate: worse)" in summary) is (word == "worse")
    )


def test_a_gate_that_could_not_judge_is_told(tmp_path):
    told = {"gate": "no judgement", "gate_lines": ["gate FAILED: no file <x>"]}
    verdict = passed() | told | {"exit_status": 1}
    run = read_run(write_run(tmp_path, entries=sweep_entries(), verdict=verdict))

    assert "gate FAILED: no file &lt;x>" in summary_markdown([run])
    assert "<p>gate FAILED: no file &lt;x&gt;</p>" in make_page([run], tmp_path)
