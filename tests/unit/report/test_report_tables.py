"""CSV, points and summary hold what was measured, and nothing that was not."""

from __future__ import annotations

import csv
import io

import pytest

from pytest_pd.report.page import make_page
from pytest_pd.report.points import points_of, size_of
from pytest_pd.report.read import read_run
from pytest_pd.report.rows import LONG, long_rows, to_csv, wide_rows
from pytest_pd.report.summary import summary_markdown
from pytest_pd.report.words import digits, duration, headline
from tests.run_kit import PLAN, entry, outcome, passed, write_run


@pytest.fixture
def run(tmp_path):
    entries = [
        entry("ttft", [0.1, 0.2, 0.3], streams=4),
        entry("output_token_time", [0.01], streams=4, tokens_per_s=100.0),
        entry("tpot", [0.02], streams=4, tokens_per_s_per_user=50.0),
        entry("ttft", [0.05], streams=1),
    ]
    return read_run(write_run(tmp_path / "r1", entries=entries, verdict=passed()))


def test_long_form_has_one_figure_a_row(run):
    rows = list(csv.DictReader(io.StringIO(to_csv(long_rows([run]), LONG))))

    found = {
        (r["metric"], r["concurrency"], r["statistic"]): float(r["value"]) for r in rows
    }
    assert found["ttft", "4", "p50"] == 0.2
    assert found["ttft", "4", "count"] == 3
    assert found["output_token_time", "4", "tokens_per_s"] == 100.0
    assert {r["topology_hash"] for r in rows} == {"abc123"}


def test_wide_form_has_one_point_a_row(run):
    rows = list(csv.DictReader(io.StringIO(to_csv(wide_rows([run])))))

    assert [r["point"] for r in rows] == ["local_sweep:c4", "local_sweep:c1"]
    assert float(rows[0]["ttft_p50"]) == 0.2
    assert rows[1]["tpot_p50"] == ""


def test_cell_that_looks_like_a_formula_is_text():
    assert to_csv([{"a": "=1+1", "b": -1.5}]) == "a,b\n'=1+1,-1.5\n"


def test_points_hold_all_metrics_of_a_load(run):
    small, large = points_of([run])

    assert (small.concurrency, large.concurrency) == (1, 4)
    assert large.tokens_per_s_per_user == 50.0
    assert large.tokens_per_s_per_device == 50.0, "two workers, the router is none"
    assert small.tokens_per_s is None


def test_throughput_is_per_gpu_where_there_are_gpus():
    plan = PLAN | {"nodes": [{"gpus_used": 4}, {"gpus_used": 2}]}

    assert size_of(plan) == (6, 2)


def test_summary_tells_verdict_reasons_and_figures(tmp_path):
    path = write_run(
        tmp_path / "r1",
        entries=[entry("ttft", streams=4, valid=False)],
        outcomes=[
            outcome("passed", "test_ok"),
            outcome("invalid", "test_rate", "rate was 3 of 10 | req/s"),
            outcome("failed", "test_same", "tokens differ <script>"),
        ],
        verdict=passed(1, failed=1, invalid=1),
    )

    text = summary_markdown([read_run(path)])

    assert "## Run r1: failed – 1 failed, 1 invalid, 1 passed" in text
    assert text.index("test_same") < text.index("test_rate"), "worst first"
    assert "rate was 3 of 10 \\| req/s" in text
    assert "<script>" not in text
    assert "test_ok" not in text
    assert "| local_sweep 4 streams | 200 ms |" in text
    assert "| NO |" in text


def test_long_list_of_failures_is_cut_and_counted(tmp_path):
    outcomes = [outcome("failed", f"test_{i}", "no") for i in range(30)]

    text = summary_markdown([read_run(write_run(tmp_path / "r1", outcomes=outcomes))])

    assert "and 10 more" in text


@pytest.mark.parametrize(
    ("verdict", "plan", "words"),
    [
        (passed(2), PLAN | {"rehearsal": True}, "REHEARSAL: passed"),
        (None, PLAN, "ended before it could conclude"),
        (passed(2) | {"exit_status": 2}, PLAN, "exit status 2"),
        (passed(2) | {"without_verdict": ["k2"]}, PLAN, "no verdict: k2"),
    ],
)
def test_headline_says_what_a_reader_must_know(tmp_path, verdict, plan, words):
    path = write_run(tmp_path / "r1", verdict=verdict, plan=plan)

    assert words in headline(read_run(path))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0, "0 s"),
        (1.5, "1.50 s"),
        (0.0123, "12.3 ms"),
        (0.9999, "1.00 s"),
        (4.2e-6, "4.20 µs"),
        (3e-10, "0.3 ns"),
    ],
)
def test_durations_have_three_digits(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (12.34, "12.3"), (0.012345, "0.0123")]
)
def test_figures_have_three_digits(value, text):
    assert digits(value) == text


def test_summary_and_page_tell_scores_with_their_gates(tmp_path):
    scores = {"pd": 0.75, "aggregated": 1.0}
    told = {"task": "pd_recall", "score": 0.75, "scores": scores}
    gates = {"paired": "failed", "drift": "passed"}
    found = entry("eval_sample", [0.1] * 40, point="", load={}, gates=gates, **told)
    bound = entry("kv_handover_bound", [1e-7], point="kv:c1", load={})
    run = read_run(write_run(tmp_path, entries=[found, bound], verdict=passed()))

    summary, page = summary_markdown([run]), make_page([run], tmp_path)

    row = "| pd_recall | 40 | 0.750 | 1.000 | paired failed, drift passed |"
    assert row in summary
    assert "<td>paired failed, drift passed</td>" in page
    assert "pd_recall (n = 40)" in page
    assert "pd_recall, aggregated (n = 40)" in page
    assert "| kv" not in summary, "no latency, no row"
