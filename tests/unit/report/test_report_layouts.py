"""Foreign layouts: the script's CSV and plots, figures into somebody's sheet."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest

from pytest_pd.cli import main
from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.report import png
from pytest_pd.report.layout_process_results import efficient, process_results_files
from pytest_pd.report.read import read_run
from pytest_pd.report.sheet import read_sheet, wanted_cells
from pytest_pd.report.write import file_word, named_charts
from tests.run_kit import PLAN, entry, passed, write_run
from tests.services import require

PNG = b"\x89PNG\r\n\x1a\n"
STEMS = ("plot", "pareto_plot", "plot_itl", "plot_ttft", "plot_req")
GPUS = PLAN | {"nodes": [{"gpus_used": 4}]}
RAW = (
    '\ufeffName,"Conc, streams",Note,TTFT p50\r\n'
    'old,1,"say ""hi""",9\r\nold,4,a\xa0b,\n,,\nlast'
)


@pytest.fixture
def drawn(monkeypatch):
    """Replace matplotlib: these tests are about which files there are."""
    monkeypatch.setattr(png, "png_of", lambda chart: PNG + chart.title.encode())


def entries(**more):
    found = []
    for streams in (1, 4):
        given = {"streams": streams, "input_tokens_mean": 48, **more}
        given["output_tokens_mean"] = 16
        found += [
            entry("ttft", [0.01 * streams], **given),
            entry("itl", [0.002], **given),
            entry("tpot", [0.002], tokens_per_s_per_user=500 / streams, **given),
            entry("output_token_time", [1e-3], tokens_per_s=80.0 * streams, **given),
            entry("request_time", [0.1], requests_per_s=2.0 * streams, **given),
        ]
    return found


def make(path, plan=GPUS, **more):
    given = entries(**more)
    return write_run(path, entries=given, verdict=passed(), plan=plan)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_script_files_lie_where_the_script_put_them(tmp_path, drawn):
    run = read_run(make(tmp_path / "r1", label="prefill_tp2dp6_generate_tp4dp1"))

    files = process_results_files([run], "T")

    place = "artifacts/isl_48_osl_16/prefill_tp2dp6_generate_tp4dp1"
    assert {*files} == {
        f"{place}/results.csv",
        *(f"{place}/{stem}.png" for stem in STEMS),
    }
    assert files[f"{place}/plot_itl.png"] == PNG + b"Inter-token latency T"


def test_columns_and_units_are_those_of_the_script(tmp_path, drawn):
    run = read_run(make(tmp_path / "r1", point="isl_shared_0_isl_unique_48_osl_16:c4"))

    files = process_results_files([run], "")

    (name,) = [name for name in files if name.endswith("results.csv")]
    assert name.startswith("artifacts/isl_shared_0_isl_unique_48_osl_16/local_1p1d/")
    assert files[name].startswith(
        ",label,configuration,concurrency,output_token_throughput_per_request,"
        "output_token_throughput_per_gpu,time_to_first_token,inter_token_latency,"
        "is_pareto_efficient"
    )
    row = rows(files[name])[-1]
    assert (row["label"], row["configuration"]) == ("local", "local_1p1d")
    assert float(row["concurrency"]) == 4
    assert float(row["time_to_first_token"]) == pytest.approx(40)
    assert float(row["output_token_throughput_per_gpu"]) == 80
    assert row["num_gpus"] == "4"


def test_several_runs_meet_in_one_folder_above(tmp_path, drawn):
    runs = [read_run(make(tmp_path / name)) for name in ("r1", "r2")]

    files = process_results_files(runs, "")

    both = rows(files["artifacts/isl_48_osl_16/results.csv"])
    assert {row["configuration"] for row in both} == {"local_1p1d_r1", "local_1p1d_r2"}
    assert [row[""] for row in both] == ["0", "1", "2", "3"]
    assert "artifacts/isl_48_osl_16/local_1p1d_r2/pareto_plot.png" in files


def test_without_gpus_nothing_is_called_per_gpu(tmp_path, drawn):
    run = read_run(make(tmp_path / "r1", plan=PLAN))

    files = process_results_files([run], "")

    found = rows(files["artifacts/isl_48_osl_16/local_1p1d/results.csv"])
    assert {row["output_token_throughput_per_gpu"] for row in found} == {""}


def test_no_closed_loop_that_holds_is_an_error(tmp_path):
    run = read_run(make(tmp_path / "r1", valid=False))

    with pytest.raises(MeasurementError, match="no closed-loop point"):
        process_results_files([run], "")


def test_dominated_points_are_not_efficient():
    assert efficient([(1, 4), (2, 2), (1, 1), (4, 1)]) == [True, True, False, True]


def test_missing_matplotlib_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = make(tmp_path / "r1")

    assert main(["report", str(path), "--png"]) == 2
    assert "pytest-pd[report]" in capsys.readouterr().err


def test_every_chart_of_the_page_is_a_real_png(tmp_path):
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        require("matplotlib", "pip install matplotlib")
    score = entry("eval_sample", [0.1], score=0.5, point="")
    path = make(tmp_path / "r1")
    with (path / "local_1p1d" / "entries.jsonl").open("a") as file:
        file.write(json.dumps(score) + "\n")

    assert main(["report", str(path), "--png", "--out", str(tmp_path / "o")]) == 0

    found = {p.stem: p.read_bytes() for p in (tmp_path / "o" / "plots").iterdir()}
    assert {*found} == {*named_charts([read_run(path)])}
    assert {"pareto", "ttft_cdf", "local_1p1d_accuracy"} <= {*found}
    assert all(data.startswith(PNG) and len(data) > 5000 for data in found.values())


def test_sheet_comes_out_as_it_went_in():
    assert str(read_sheet(RAW)) == RAW
    assert str(read_sheet("")) == ""


@pytest.mark.parametrize(
    ("word", "index"),
    [("A", 0), ("O", 14), ("AA", 26), ("Note", 2), ("Conc, streams", 1)],
)
def test_columns_go_by_letter_or_header(word, index):
    assert read_sheet(RAW).column(word) == index


def test_header_that_looks_like_a_letter_has_a_way():
    assert read_sheet("x,O\n").column("header:O") == 1


def test_unknown_and_doubled_headers_are_refused():
    with pytest.raises(SpecError, match="Not"):
        read_sheet(RAW).column("Noted")
    with pytest.raises(SpecError, match="2 times"):
        read_sheet("ab,ab\n").column("ab")


def test_only_the_cell_set_changes():
    sheet = read_sheet(RAW).with_cell(1, 3, "a,b").with_cell(4, 2, "x")

    text = str(sheet)

    assert text == RAW.replace('"",9\r'[2:], ',"a,b"\r').replace("\nlast", "\nlast,,x")


def test_row_outside_and_open_quote_are_refused():
    with pytest.raises(MeasurementError, match="Row 9"):
        read_sheet(RAW).with_cell(8, 0, "x")
    with pytest.raises(MeasurementError, match="never closed"):
        read_sheet('a,"b\nc')


def test_wishes_are_read_in_order():
    assert wanted_cells(["O=ttft.p50:ms,TTFT = p99=ttft.p99", "B=itl.p50"]) == [
        ("O", "ttft.p50:ms"),
        ("TTFT = p99", "ttft.p99"),
        ("B", "itl.p50"),
    ]
    with pytest.raises(SpecError, match="does not say"):
        wanted_cells(["ttft.p50"])


def fill(tmp_path, *words, text=RAW):
    """Run the command on a sheet and return its exit code and the sheet's bytes."""
    path = make(tmp_path / "r1")
    sheet = tmp_path / "s.csv"
    sheet.write_bytes(text.encode())
    code = main(
        ["report", str(path), "--layout", "sheet", "--sheet", str(sheet), *words]
    )
    return code, sheet.read_bytes().decode()


MATCH = ("--match", "Conc, streams=concurrency")


def test_figures_go_to_the_rows_of_their_concurrency(tmp_path):
    cells = "TTFT p50=ttft.p50:ms,F=output_token_time.tokens_per_s"

    code, text = fill(tmp_path, "--cells", cells, *MATCH)

    assert code == 0
    assert text == RAW.replace('"",9\r', '"",10,,80\r').replace(
        "a\xa0b,\n", "a\xa0b,40,,320\n"
    )


def test_rows_count_from_the_first_one_where_nothing_is_matched(tmp_path):
    code, text = fill(tmp_path, "--cells", "A=ttft.p50:ms", "--first-row", "4")

    assert code == 0
    assert text.endswith("10,,\n40")


def test_bytes_that_are_no_utf8_stay(tmp_path):
    path, sheet = make(tmp_path / "r1"), tmp_path / "s.csv"
    sheet.write_bytes(b"\xe9t\xe9,c\n\xff,1\n\xfe,4")

    main(
        [
            "report",
            str(path),
            "--layout",
            "sheet",
            "--sheet",
            str(sheet),
            "--cells",
            "C=ttft.p50",
            "--match",
            "c=concurrency",
        ]
    )

    assert sheet.read_bytes() == b"\xe9t\xe9,c\n\xff,1,0.01\n\xfe,4,0.04"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--cells", "A=ttft.p77"), "'p77' is not known"),
        (("--cells", "A=tfft.p50"), "did you mean 'ttft'"),
        (("--cells", "A=output_token_time.tokens_per_s:ms"), "does not fit"),
        (("--cells", "A=ttft.p50", "--match", "Note=concurrency"), "No row"),
        (("--cells", "A=ttft.p50", "--match", "A=streams"), "'streams' is not known"),
        (("--cells", "A=ttft.p50", "--first-row", "5"), "Row 6"),
        (("--cells", "A=ttft.p50", "--first-row", "0"), "rows count from 1"),
        (("--cells", "A=ttft.p50", "--match", "Name=hardware"), "No row"),
        ((), "--cells"),
    ],
)
def test_wrong_wishes_are_told_and_change_nothing(tmp_path, capsys, words, told):
    code, text = fill(tmp_path, *words)

    assert code == 2
    assert told in capsys.readouterr().err
    assert text == RAW


def test_point_without_a_row_is_named_and_the_sheet_stays(tmp_path, capsys):
    text = RAW.replace("old,4", "old,8")

    code, after = fill(tmp_path, "--cells", "D=ttft.p50", *MATCH, text=text)

    assert code == 2
    assert "No row of the sheet matches 'Conc, streams=concurrency': 4." in (
        capsys.readouterr().err
    )
    assert after == text


def test_point_without_the_field_needs_no_row(tmp_path):
    open_loop = {"concurrency": None, "arrivals": "poisson", "rate_per_s": 2.0}
    given = [*entries(), entry("ttft", [0.5], point="rate:r2", load=open_loop)]
    path = write_run(tmp_path / "r2", entries=given, verdict=passed(), plan=GPUS)
    sheet = tmp_path / "s.csv"
    sheet.write_text("streams,p50\n1,\n4,\n")
    words = ["--layout", "sheet", "--sheet", str(sheet), "--cells", "B=ttft.p50:ms"]

    assert main(["report", str(path), *words, "--match", "A=concurrency"]) == 0
    assert sheet.read_text() == "streams,p50\n1,10\n4,40\n"


def test_two_points_never_share_a_row(tmp_path, capsys):
    code, _text = fill(
        tmp_path,
        "--cells",
        "D=ttft.p50",
        "--match",
        "A=topology",
        text="local_1p1d,,,\n",
    )

    assert code == 2
    assert "is wanted by" in capsys.readouterr().err


def test_archive_holds_the_report_and_the_sheet_as_it_was(tmp_path):
    archive = tmp_path / "archive"

    code, text = fill(
        tmp_path, "--cells", "D=ttft.p50", *MATCH, "--archive", str(archive)
    )

    assert code == 0
    assert (archive / "r1" / "before-s.csv").read_bytes().decode() == RAW
    assert text != RAW
    assert (archive / "r1" / "report.html").is_file()


def test_sheet_that_is_not_there_is_one_message(tmp_path, capsys):
    path = make(tmp_path / "r1")
    words = [
        "--layout",
        "sheet",
        "--sheet",
        str(tmp_path / "x"),
        "--cells",
        "A=ttft.p50",
    ]

    assert main(["report", str(path), *words]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_names_of_files_are_safe():
    assert file_word("a/b c:1") == "a-b-c-1"
    assert file_word("../..") == "unnamed"
