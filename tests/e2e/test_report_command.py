"""``pytest-pd report``: from a run's folder to files that a person opens."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time

import pytest

from pytest_pd.cli import main
from tests.run_kit import PLAN, entry, outcome, passed, write_run

FILES = {"report.html", "summary.md", "results.csv", "results_wide.csv"}


@pytest.fixture
def run(tmp_path):
    return write_run(
        tmp_path / "20260801T020000Z-abcd",
        run_id="abcd",
        entries=[entry("ttft"), entry("output_token_time", [0.01], tokens_per_s=9.0)],
        outcomes=[outcome("failed", reason="tokens differ")],
        verdict=passed(3, failed=1),
    )


def test_files_lie_in_the_runs_folder(run, capsys):
    assert main(["report", str(run)]) == 0

    assert {
        line.rpartition("/")[2] for line in capsys.readouterr().out.split()
    } == FILES
    assert {path.name for path in run.iterdir()} >= FILES
    assert "tokens differ" in (run / "summary.md").read_text()
    with (run / "results.csv").open() as file:
        assert {row["metric"] for row in csv.DictReader(file)} == {
            "ttft",
            "output_token_time",
        }


def test_report_of_a_process_of_its_own(run, tmp_path):
    out = tmp_path / "out"

    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest_pd.cli",
            "report",
            run,
            "--out",
            out,
            "--title",
            "T",
        ],
        check=True,
    )

    assert {path.name for path in out.iterdir()} == FILES
    assert "<h1>T</h1>" in (out / "report.html").read_text()


def test_several_runs_need_a_folder(run, capsys):
    assert main(["report", str(run), str(run)]) == 2
    assert "--out" in capsys.readouterr().err


def test_no_run_is_one_message(tmp_path, capsys):
    assert main(["report", str(tmp_path / "nothing")]) == 2

    assert "holds no run" in capsys.readouterr().err


def test_folder_that_cannot_be_written_is_one_message(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")

    assert main(["report", str(run), "--out", str(tmp_path / "file" / "x")]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_secret_reaches_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghijklmnop")
    services = [{"name": "a", "role": "decode", "argv": ["hf_abcdefghijklmnop"]}]
    path = write_run(
        tmp_path / "r1",
        plan=PLAN | {"services": services},
        environment={"variables": {"X": "see hf_abcdefghijklmnop"}},
        outcomes=[outcome("failed", reason="hf_abcdefghijklmnop is wrong")],
        verdict=passed(1, failed=1),
    )

    main(["report", str(path), "--out", str(tmp_path / "out")])

    for name in FILES:
        assert "hf_abcdef" not in (tmp_path / "out" / name).read_text(), name
    assert "*** is wrong" in (tmp_path / "out" / "summary.md").read_text()


def test_large_run_gives_a_small_page(tmp_path):
    entries = [
        entry(metric, [(i % 97 + 1) / 1000 for i in range(2000)], streams=streams)
        for metric in ("ttft", "itl", "tpot", "e2e", "output_token_time")
        for streams in range(1, 11)
    ]
    path = write_run(tmp_path / "r1", entries=entries, verdict=passed())
    started_s = time.monotonic()

    main(["report", str(path)])

    print(json.dumps({"report_s": time.monotonic() - started_s}))
    assert (path / "report.html").stat().st_size < 3_000_000
