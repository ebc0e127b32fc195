"""``pytest-pd load`` and ``pytest-pd calibrate`` as a person meets them."""

from __future__ import annotations

import io
import json
import ssl

import httpx
import pytest
from rich.console import Console

from pytest_pd.cli import main
from pytest_pd.errors import ProcessDied
from pytest_pd.load.engine import Counters
from pytest_pd.load.result import LoadResult
from pytest_pd.load.truth_process import truth_server
from pytest_pd.load.workload import target_for
from pytest_pd.terminal.view import LiveView


@pytest.fixture(scope="module")
def url():
    with truth_server("--ttft-ms", "10", "--itl-ms", "2") as server:
        yield server.url


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


FAST = ["--output-tokens", "8", "--input-tokens", "16", "--warmup", "1"]


@pytest.mark.parametrize("tail", ["/", "/v1", "/v1/"])
def test_url_may_be_written_as_openais_clients_want_it(url, tail):
    words = [f"{url}{tail}", "--requests", "4", *FAST, "--no-calibrate", "--quiet"]
    assert main(["load", *words]) == 0


def test_level_without_a_point_is_refused(url, capsys):
    code = main(["load", url, "--workload", "local_multi_turn", "--level", "quick"])

    assert code == 2
    assert "has no point of level 'quick'" in capsys.readouterr().err


def test_sweep_prints_a_table_and_writes_json_and_records(url, tmp_path, capsys):
    code = main(
        [
            "load",
            url,
            "--concurrency",
            "1,2",
            "--requests",
            "8",
            *FAST,
            "--no-calibrate",
            "--slo-ttft-ms",
            "9999",
            "--json",
            str(tmp_path / "o.json"),
            "--save",
            str(tmp_path / "raw"),
        ]
    )

    said = capsys.readouterr().out
    assert code == 0
    assert "ttft" in said
    assert "goodput" in said
    first, second = json.loads((tmp_path / "o.json").read_text())
    assert (first["point"], second["point"]) == ("c1", "c2")
    assert first["run"]["model"] == "truth"
    assert first["metrics"]["ttft"]["percentiles_s"]["p50"] >= 0.01
    assert first["goodput"]["share"] == 1.0
    assert len(LoadResult.load(tmp_path / "raw/c2.npz").rows()) == 8


def test_calibration_is_told_beside_the_figures(url, tmp_path, capsys):
    main(
        [
            "load",
            url,
            "--requests",
            "6",
            *FAST,
            "--calibrate-seconds",
            "0.3",
            "--json",
            str(tmp_path / "o.json"),
        ]
    )

    assert "instrument error" in capsys.readouterr().out
    (entry,) = json.loads((tmp_path / "o.json").read_text())
    assert entry["run"]["instrument"]["calibration"]["events"] > 0


def test_invalid_run_is_not_green(url, capsys):
    """Two requests for one stream are no steady state."""
    code = main(["load", url, "--requests", "2", *FAST, "--no-calibrate"])

    assert code == 1
    assert "INVALID: 2 requests are fewer than 4 x concurrency" in (
        capsys.readouterr().out
    )


def test_failed_requests_are_not_green(capsys):
    words = ["http://127.0.0.1:9", "--model", "m", "--requests", "8"]

    code = main(["load", *words, *FAST])

    assert code == 1
    assert "FAILED: 8 of 8 requests" in capsys.readouterr().out


def test_open_loop_from_the_command_line(url, tmp_path):
    main(
        [
            "load",
            url,
            "--rate",
            "50",
            "--arrivals",
            "constant",
            "--requests",
            "10",
            *FAST,
            "--no-calibrate",
            "--json",
            str(tmp_path / "o.json"),
        ]
    )

    (entry,) = json.loads((tmp_path / "o.json").read_text())
    assert entry["point"] == "r50"
    assert "ttft_intended" in entry["metrics"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["http://127.0.0.1:9"], "does not say what it serves"),
        (["nonsense", "--model", "m"], "not of the form"),
        (["http://h", "--model", "m", "--header", "X"], "has no value"),
        (["http://h", "--model", "m", "--api-key-env", "PD_NO_KEY"], "is empty"),
        (["http://h", "--model", "m", "--workload", "nope"], "'nope' is not known"),
        (["http://h", "--model", "m", "--model-dir", "/nope"], "does not exist"),
        (
            ["http://h", "--model", "m", "--requests", "3", "--duration", "2"],
            "do not fit together",
        ),
        (["http://h", "--model", "m", "--shared-tokens", "128"], "leave none of 128"),
        (["http://h", "--json", "/nope/o.json"], "/nope does not exist"),
        (["http://h", "--json", "/"], "is a folder"),
        (["http://h", "--save", "/dev/null"], "cannot be a folder"),
    ],
)
def test_wrong_call_is_a_sentence_and_code_2(words, message, capsys):
    assert main(["load", *words]) == 2

    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize("key", ["sk-secret\r\n", "sk-\vsecret", "sk-secret\x7f"])
def test_key_is_never_shown(url, key, capsys, monkeypatch):
    """A library that is given a header it cannot send shows its value."""
    monkeypatch.setenv("PD_KEY", key)
    words = [url, "--api-key-env", "PD_KEY", "--requests", "4", "--no-calibrate"]

    code = main(["load", *words, *FAST, "--quiet"])

    said = capsys.readouterr()
    assert code == (0 if key.endswith("\n") else 2), "a line's end is no part of it"
    assert "secret" not in said.out + said.err


@pytest.mark.parametrize(
    "models", [[], {"data": None}, {"data": []}, {"data": [None]}, {"data": [{}]}]
)
def test_list_of_models_without_a_name_is_a_sentence(models, capsys, monkeypatch):
    def get(url, **_):
        return httpx.Response(200, json=models, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", get)

    assert main(["load", "http://h"]) == 2
    assert "does not say what it serves" in capsys.readouterr().err


def test_ca_file_is_trusted_by_all_that_is_asked(tmp_path, monkeypatch):
    """The name that is served, the tokenizer and the range of token ids."""
    context, seen = ssl.create_default_context(), {}
    monkeypatch.setattr(ssl, "create_default_context", lambda cafile: context)

    def answer(url, **options):
        seen[url.removeprefix("https://127.0.0.1:9")] = options["verify"]
        known = {"data": [{"id": "m"}]} if url.endswith("models") else {}
        return httpx.Response(200, json=known, request=httpx.Request("GET", url))

    monkeypatch.setattr(httpx, "get", answer)
    monkeypatch.setattr(httpx, "post", answer)
    words = ["https://127.0.0.1:9", "--ca-file", str(tmp_path / "ca.pem")]
    main(["load", *words, "--requests", "4", *FAST, "--quiet"])
    main(["load", *words, "--endpoint", "chat", *FAST])

    assert seen == dict.fromkeys(
        ("/v1/models", "/tokenize", "/v1/completions", "/v1/chat/completions"), context
    )


def test_calibrate_prints_one_line_and_json(tmp_path, capsys):
    path = tmp_path / "c.json"

    code = main(
        [
            "calibrate",
            "--concurrency",
            "2",
            "--ttft-ms",
            "5",
            "--itl-ms",
            "2",
            "--seconds",
            "0.4",
            "--json",
            str(path),
        ]
    )

    assert code == 0
    assert capsys.readouterr().out.startswith("instrument error p50/p99/max us: ttft")
    assert json.loads(path.read_text())["rhythm"]["concurrency"] == 2


def test_workload_file_has_its_shards_and_its_share_of_error(
    url, tmp_path, monkeypatch
):
    path = tmp_path / "w.yaml"
    path.write_text(
        "name: w\ninput_tokens: 16\noutput_tokens: 4\nconcurrency: [2]\n"
        "requests: 8\nshards: 2\nerror_share: 0.4\n"
    )
    seen = {}

    def measure(run, make_prompts, calibrate, *, error_share):
        seen["error_share"] = error_share
        return run(make_prompts())

    monkeypatch.setattr("pytest_pd.terminal.load.measure_point", measure)
    out = tmp_path / "o.json"
    main(["load", url, "--workload", str(path), "--json", str(out), "--quiet"])

    (entry,) = json.loads(out.read_text())
    assert entry["run"]["instrument"]["shards"] == 2
    assert seen == {"error_share": 0.4}


@pytest.mark.parametrize(("words", "asked"), [([], True), (["--stop-at-eos"], False)])
def test_answers_may_be_let_end_by_themselves(url, words, asked, monkeypatch):
    seen = []

    def target(spec, *args, **options):
        seen.append(target_for(spec, *args, **options))
        return seen[-1]

    monkeypatch.setattr("pytest_pd.terminal.load.target_for", target)
    options = ["--requests", "4", *FAST, "--no-calibrate", "--quiet", *words]

    assert main(["load", url, *options]) == 0
    assert [each.ignore_eos for each in seen] == [asked]


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit):
        main(["load", "--help"])

    assert "pytest-pd load http://127.0.0.1:8000 --concurrency 16" in (
        capsys.readouterr().out
    )


def test_live_view_shows_rate_and_flight():
    sink = io.StringIO()
    console = Console(file=sink, width=120, force_terminal=True)

    with LiveView("c4", console).running(10) as tick:
        tick(Counters(in_flight=4, done=6, failed=1))

    assert "4 in flight, 1 failed" in sink.getvalue()


def test_live_view_of_a_point_limited_by_time_shows_the_time():
    sink = io.StringIO()
    console = Console(file=sink, width=120, force_terminal=True)

    with LiveView("c4", console).running(100_000, 30.0) as tick:
        tick(Counters(done=6))

    assert "0/30 s" in sink.getvalue()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("load", "--shards=0"),
        ("load", "--duration=inf"),
        ("load", "--timeout=inf"),
        ("load", "--slo-ttft-ms=nan"),
        ("load", "--rate=1,"),
        ("calibrate", "--itl-ms=0"),
        ("calibrate", "--ttft-ms=-1"),
        ("calibrate", "--seconds=nan"),
        ("calibrate", "--shards=0"),
    ],
)
def test_number_that_cannot_be_is_refused_with_its_option(command, option, capsys):
    words = ["http://h"] if command == "load" else []

    with pytest.raises(SystemExit) as ended:
        main([command, *words, option])

    assert ended.value.code == 2
    assert f"argument {option.partition('=')[0]}: " in capsys.readouterr().err


def test_calibrate_looks_for_the_folder_first(capsys):
    assert main(["calibrate", "--json", "/nope/c.json", "--seconds", "9999"]) == 2

    assert "mkdir -p /nope" in capsys.readouterr().err


def test_points_measured_before_an_error_are_in_the_file(url, tmp_path, monkeypatch):
    seen = []

    def measure(run, make_prompts, calibrate, **_):
        if seen:
            raise ProcessDied("The load process is gone.")
        seen.append(run(make_prompts()))
        return seen[0]

    monkeypatch.setattr("pytest_pd.terminal.load.measure_point", measure)
    out = tmp_path / "o.json"
    words = [url, "--concurrency", "1,2", "--requests", "8", *FAST, "--quiet"]

    assert main(["load", *words, "--json", str(out)]) == 2
    assert [entry["point"] for entry in json.loads(out.read_text())] == ["c1"]
