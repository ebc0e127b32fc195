"""A history: nights in a folder or store, changes of level, what else changed."""

from __future__ import annotations

import csv
import json
import os
import sys

import numpy as np
import pytest

from pytest_pd.cli import main
from pytest_pd.errors import MeasurementError
from pytest_pd.report.history import findings, plots_of, tracks_of
from pytest_pd.report.night import night_of, night_text, read_night
from pytest_pd.report.read import read_run
from pytest_pd.report.store import keep_night, read_nights
from tests.run_kit import entry, passed, write_run
from tests.services import require

RNG = np.random.default_rng(8)


def make(folder, day, scale=1.0, **more):
    """Write the run of one night, named by its start as pytest does."""
    values = [*(np.exp(RNG.normal(-3, 0.05, 20)) * scale)]
    metrics = [entry(metric, values, **more) for metric in ("ttft", "itl")]
    name = f"202608{day:02d}T020000Z-run{day}"
    return write_run(
        folder / name, entries=metrics, verdict=passed(), run_id=f"run{day}"
    )


@pytest.fixture
def runs(tmp_path):
    """Twelve nights, slower by 30 % and with another engine from the ninth on."""
    for day in range(1, 13):
        version = "0.31" if day < 9 else "0.32"
        scale = 1.0 if day < 9 else 1.3
        make(tmp_path / "runs", day, scale, versions={"vllm": version})
    return tmp_path / "runs"


def test_change_is_told_with_its_night_and_what_else_changed(runs, capsys):
    assert main(["history", str(runs)]) == 0

    out = capsys.readouterr().out
    assert "12 runs, 2 figures, 2 changes of level" in out
    assert "since 2026-08-09T02:00:00Z (run9)" in out
    assert "[vllm 0.31 -> 0.32]" in out
    assert out.count("slower +3") + out.count("slower +2") == 2


def test_nights_alike_have_no_change(tmp_path, capsys):
    for day in range(1, 13):
        make(tmp_path / "runs", day)

    assert main(["history", str(tmp_path / "runs")]) == 0
    assert "0 changes of level" in capsys.readouterr().out


def test_nights_outlive_their_runs(runs, tmp_path, capsys):
    store = tmp_path / "store"
    words = [str(path) for path in sorted(runs.iterdir())]

    assert main(["history", str(store), "--add", *words]) == 0

    assert len([*store.glob("*.night.json")]) == 12
    assert "2 changes of level" in capsys.readouterr().out
    assert read_nights(str(store)) == read_nights(str(runs))


def test_run_and_its_night_count_once(runs):
    keep_night(str(runs), night_of(read_run(next(runs.glob("*run3")))))

    assert len(read_nights(str(runs))) == 12


def test_other_set_ups_are_other_lines(tmp_path):
    for day in range(1, 7):
        make(tmp_path / "runs", day, topology_hash="a" if day < 4 else "b")

    tracks = tracks_of(read_nights(str(tmp_path / "runs")))

    assert sorted(track.nights for track in tracks) == [(0, 1, 2)] * 2 + [(3, 4, 5)] * 2


def test_another_load_begins_another_line(tmp_path):
    for day in range(1, 7):
        load = {"concurrency": 4 if day < 4 else 8}
        make(tmp_path / "runs", day, 1.0 if day < 4 else 2.0, load=load)

    tracks = tracks_of(read_nights(str(tmp_path / "runs")))

    assert sorted(track.nights for track in tracks) == [(0, 1, 2)] * 2 + [(3, 4, 5)] * 2
    assert not any(track.changes for track in tracks)
    assert sum("load of" in track.place for track in tracks) == 2


def test_killed_run_is_no_night(runs):
    (next(runs.glob("*run3")) / "verdict.json").unlink()

    assert len(read_nights(str(runs))) == 11


def test_run_without_figures_is_a_night_all_the_same(tmp_path):
    path = write_run(tmp_path / "20260801T020000Z-x", verdict=passed())

    night = night_of(read_run(path))

    assert night.specs == ()
    assert read_night(night_text(night), "x") == night


def test_start_is_that_of_the_run_where_it_is_known(tmp_path):
    path = make(tmp_path, 1)
    manifest = {"run_id": "r", "created_s": 1_790_000_000.0}
    (path / "local_1p1d" / "manifest.json").write_text(json.dumps(manifest))

    assert night_of(read_run(path)).at == "2026-09-21T14:13:20Z"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run_id": 1, "at": "x"}'])
def test_other_files_are_told(tmp_path, text):
    (tmp_path / "a.night.json").write_text(text)

    with pytest.raises(MeasurementError, match="no night"):
        read_nights(str(tmp_path))


def test_a_night_that_is_no_text_is_told(tmp_path):
    (tmp_path / "x.night.json").write_bytes(b"\xff{")

    with pytest.raises(MeasurementError, match=r"x\.night\.json' is no night"):
        read_nights(str(tmp_path))


@pytest.mark.parametrize("command", ["report", "history"])
def test_words_that_are_no_text_are_escaped(runs, tmp_path, command):
    title, out = os.fsdecode(b"\xff"), tmp_path / "out"
    place = sorted(runs.iterdir())[0] if command == "report" else runs

    assert main([command, str(place), "--out", str(out), "--title", title]) == 0

    assert "\\udcff" in (out / f"{command}.html").read_text()


def test_empty_store_is_one_message(tmp_path, capsys):
    assert main(["history", str(tmp_path)]) == 2
    assert "--add" in capsys.readouterr().err


def test_page_and_table_show_the_change(runs, tmp_path):
    assert main(["history", str(runs), "--out", str(tmp_path / "o")]) == 0

    page = (tmp_path / "o" / "history.html").read_text()
    assert "2 changes of level, 2 of them slower" in page
    assert page.count('class="rule"') == 2
    assert "vllm 0.31 to 0.32" in page
    with (tmp_path / "o" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["run_id"] for row in rows if row["new_level"] == "True"} == {"run9"}


def test_changed_figures_are_drawn_first(runs):
    nights = read_nights(str(runs))
    tracks = tracks_of(nights)

    assert len(findings(nights, tracks)) == 2
    assert [len(plot.marks) for plot in plots_of(tracks)] == [1, 1]


def test_object_store_keeps_nights(runs):
    try:
        import fsspec  # noqa: F401
    except ImportError:
        require("fsspec", "pip install fsspec")
    place = "memory://history-test/nightly"

    kept = [
        keep_night(place, night_of(read_run(path))) for path in sorted(runs.iterdir())
    ]

    assert kept[0].startswith(f"{place}/2026")
    assert read_nights(place) == read_nights(str(runs))


def test_store_without_its_library_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)

    assert main(["history", "s3://bucket/x"]) == 2
    assert "pip install fsspec" in capsys.readouterr().err
