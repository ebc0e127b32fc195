"""A point that was measured is on disk, whatever becomes of its table or of others."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.load import option
from pytest_pd.load.option import check_file, write_json
from pytest_pd.load.result import LoadResult
from pytest_pd.load.truth_process import truth_server
from pytest_pd.terminal import kept


@pytest.fixture(scope="module")
def url():
    with truth_server("--ttft-ms", "10", "--itl-ms", "2") as server:
        yield server.url


@pytest.fixture
def sweep(url):
    words = ["--concurrency", "1,2", "--requests", "8", "--warmup", "1", "--quiet"]
    words += ["--output-tokens", "8", "--input-tokens", "16", "--no-calibrate"]
    return ["load", url, *words]


@pytest.fixture
def files(tmp_path):
    return ["--json", str(tmp_path / "o.json"), "--save", str(tmp_path / "raw")]


def points(tmp_path):
    """Return the points of the figures, and those of the raw records."""
    found = json.loads((tmp_path / "o.json").read_text())
    records = sorted((tmp_path / "raw").iterdir())
    return [entry["point"] for entry in found], [path.name for path in records]


def failing(*failures):
    """Return a call that fails as told, once each, then does nothing."""
    left = iter(failures)

    def call(*_, **__):
        if error := next(left, None):
            raise error

    return call


def test_a_reader_that_left_costs_no_point(sweep, files, tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "show", failing(BrokenPipeError(), BrokenPipeError()))

    main([*sweep, *files])

    assert points(tmp_path) == (["c1", "c2"], ["c1.npz", "c2.npz"])


def test_a_sweep_that_nobody_reads_or_keeps_ends(monkeypatch):
    monkeypatch.setattr(kept, "show", failing(BrokenPipeError()))

    with pytest.raises(BrokenPipeError):
        kept.Keeper(None, None).keep("c1", None, {}, last=False)


def test_a_record_that_has_no_room_costs_neither_figures_nor_later_points(
    sweep, files, tmp_path, monkeypatch, capsys
):
    saved, full = LoadResult.save, failing(OSError(28, "No space left on device"))

    def save(result, path):
        full()
        return saved(result, path)

    monkeypatch.setattr(LoadResult, "save", save)

    assert main([*sweep, *files]) == 2

    said = capsys.readouterr()
    assert points(tmp_path) == (["c1", "c2"], ["c2.npz"])
    assert "c1.npz cannot be written: No space left" in said.err
    assert "Not written: " in said.err
    assert "c2: {'ok': 8}" in said.out


def test_figures_that_had_no_room_at_first_come_with_the_next_point(
    sweep, files, tmp_path, monkeypatch, capsys
):
    full = failing(MeasurementError("No space."))

    def write(*words, **options):
        full()
        write_json(*words, **options)

    monkeypatch.setattr(kept, "write_json", write)

    assert main([*sweep, *files]) == 0

    assert points(tmp_path)[0] == ["c1", "c2"]
    assert "pytest-pd load: No space." in capsys.readouterr().err


@pytest.fixture
def small_files():
    """Let no file grow over 4 KiB, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_figures_are_replaced_whole_or_left_as_they_were(tmp_path, small_files):
    path = tmp_path / "o.json"
    write_json(path, ["first"])

    with pytest.raises(MeasurementError, match="File too large"):
        write_json(path, ["x" * 9000])

    assert json.loads(path.read_text()) == ["first"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_to_the_figures_stays_one(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "o.json")

    write_json(tmp_path / "link", [1])

    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "o.json").read_text()) == [1]


def test_figures_go_into_a_pipe_at_the_end(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    for done in (False, True):
        write_json(path, [done], done=done)

    assert json.loads(os.read(reader, 99)) == [True]
    os.close(reader)


def test_figures_of_others_stay_closed_to_them(tmp_path):
    path = tmp_path / "o.json"
    path.touch(mode=0o600)

    write_json(path, [1])

    assert path.stat().st_mode & 0o777 == 0o600


def test_figures_follow_what_was_printed_where_output_goes_into_a_file(tmp_path):
    """What ``--json /dev/stdout > file`` names is a file, and holds the tables."""
    path = tmp_path / "out.txt"
    path.write_text("table\n")
    with path.open("a") as output:
        for done in (False, True):
            write_json(Path(f"/dev/fd/{output.fileno()}"), [done], done=done)

    assert path.read_text() == "table\n[\n true\n]\n"


@pytest.mark.parametrize("exists", [False, True])
def test_a_file_in_a_folder_that_is_closed_is_refused(exists, tmp_path, monkeypatch):
    path = tmp_path / "o.json"
    if exists:
        path.touch()
    monkeypatch.setattr(option.os, "access", lambda place, _: place != tmp_path)

    with pytest.raises(SpecError, match="cannot be written"):
        check_file(path)
