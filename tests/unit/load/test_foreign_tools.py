"""Results of aiperf, vllm bench and guidellm, recorded from their real runs."""

from __future__ import annotations

import json
import shutil
import stat
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from pytest_pd.errors import EngineMissing, MeasurementError, SpecError
from pytest_pd.load.external import DRIVERS, run_external
from pytest_pd.load.external.driver import limit_s
from pytest_pd.load.external.foreign import ForeignRequest, foreign_result
from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.prompts import Lengths
from pytest_pd.load.target import Target
from pytest_pd.measure.goodput import goodput
from pytest_pd.measure.latency import latencies, measurements
from pytest_pd.provision.launcher import start_time
from pytest_pd.spec.slo import SloSpec
from tests.kit import wait_until

DATA = Path(__file__).parent / "data"
FILES = {
    "vllm": ("vllm-bench-0.32.json", "vllm-bench.json", 8),
    "aiperf": ("aiperf-0.13.jsonl", "profile_export.jsonl", 3),
    "guidellm": ("guidellm-0.8.json", "guidellm.json", 3),
}
TARGET = Target(url="http://127.0.0.1:8000", model="m")
POINT = LoadPoint(concurrency=4, requests=8, min_waves=1)


def tool(folder, script):
    """Return the path of a program that runs `script`."""
    program = folder / "tool"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize("name", FILES)
def test_real_result_becomes_records(name):
    requests = DRIVERS[name].read(DATA / FILES[name][0])

    result = foreign_result(name, requests, TARGET, POINT)

    assert result.counts() == {"ok": FILES[name][2]}
    assert result.instrument.engine == name
    # the server was the truth server: 100 ms, then 19 gaps of 20 ms
    found = latencies(result)
    assert 0.1 <= min(found.ttft) < 0.5
    assert min(found.e2e) == pytest.approx(0.48, abs=0.05)
    assert set(result.rows()["output_tokens"]) == {20}


def test_vllm_figures_agree_with_its_own(tmp_path):
    path = DATA / FILES["vllm"][0]
    own = json.loads(path.read_text())

    found = latencies(foreign_result("vllm", DRIVERS["vllm"].read(path), TARGET, POINT))

    assert found.ttft.mean() * 1e3 == pytest.approx(own["mean_ttft_ms"], abs=0.001)
    assert found.itl.mean() * 1e3 == pytest.approx(own["mean_itl_ms"], abs=0.001)
    assert found.tpot.mean() * 1e3 == pytest.approx(own["mean_tpot_ms"], abs=0.001)


def test_tool_without_event_times_gets_no_itl():
    requests = DRIVERS["guidellm"].read(DATA / FILES["guidellm"][0])
    result = foreign_result("guidellm", requests, TARGET, POINT)

    metrics = {m.metric for m in measurements(result)}

    assert "itl" not in metrics
    assert {"ttft", "tpot", "e2e"} <= metrics
    assert "first and last" in result.instrument.stamp_source


def test_an_slo_of_gaps_is_not_judged_by_first_and_last_event():
    requests = DRIVERS["guidellm"].read(DATA / FILES["guidellm"][0])
    result = foreign_result("guidellm", requests, TARGET, POINT)

    with pytest.raises(MeasurementError, match="first and last event only"):
        goodput(result, SloSpec(itl_ms=50))


def test_failure_of_a_foreign_request_stays_in():
    good = ForeignRequest(0.0, (0.1, 0.2), 5, 2)
    bad = ForeignRequest(0.05, (), 5, 0, error="refused")

    result = foreign_result("x", [good, bad], TARGET, POINT)

    assert result.counts() == {"ok": 1, "disconnect": 1}
    assert result.errors == {1: "refused"}
    assert result.instrument.most_in_flight == 2


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [None, "{", '{"benchmarks": [{}]}'])
def test_what_cannot_be_read_is_told(tmp_path, name, content):
    if content is not None:
        (tmp_path / FILES[name][1]).write_text(content)

    with pytest.raises(MeasurementError):
        DRIVERS[name].read(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_tool_is_run_and_read(tmp_path, name):
    """A program of that name that writes what the real one wrote."""
    program = tmp_path / name
    recorded, wanted, count = FILES[name]
    program.write_text(f'#!/bin/sh\necho "$@"\ncp "{DATA / recorded}" out/{wanted}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    folder = tmp_path / "out"
    shutil.copytree(DATA, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = run_external(
            name,
            TARGET,
            POINT,
            Lengths(input_tokens=16, output_tokens=20),
            tokenizer=Path("tok"),
            output=folder,
            executable=str(program),
        )

    assert result.counts() == {"ok": count}
    said = (folder / f"{name}.log").read_text()
    assert "http://127.0.0.1:8000" in said
    assert "20" in said


@pytest.mark.parametrize("name", FILES)
def test_open_loop_is_asked_for_as_a_rate(name):
    point = LoadPoint(
        concurrency=None, arrivals=Arrivals.POISSON, rate_per_s=2.5, requests=9
    )

    words = DRIVERS[name].command(
        "tool", TARGET, point, Lengths(), Path("tok"), Path("out")
    )

    assert any("2.5" in word for word in words)


def test_absent_tool_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EngineMissing, match="not on PATH") as caught:
        run_external(
            "aiperf", TARGET, POINT, Lengths(), tokenizer=tmp_path, output=tmp_path
        )

    assert "pip install aiperf" in str(caught.value)


def test_failed_tool_is_an_error_with_its_log(tmp_path):
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\necho no such model; exit 4\n")
    program.chmod(0o755)

    with pytest.raises(MeasurementError, match="code 4") as caught:
        run_external(
            "vllm",
            TARGET,
            POINT,
            Lengths(),
            tokenizer=tmp_path,
            output=tmp_path,
            executable=str(program),
        )

    assert "no such model" in Path(caught.value.where).read_text()


def test_unknown_tool_is_named():
    with pytest.raises(SpecError, match="'aiprf' is not known"):
        run_external("aiprf", TARGET, POINT, Lengths(), tokenizer=Path(), output=Path())


def test_requests_that_waited_in_the_tool_void_an_open_loop():
    offered = LoadPoint(
        concurrency=None, arrivals=Arrivals.CONSTANT, rate_per_s=10, requests=50
    )
    queued = [
        ForeignRequest(5 + k / 10, (0.05, 0.06), 5, 2, queue_s=5.0) for k in range(50)
    ]

    result = foreign_result("x", queued, TARGET, offered)

    assert result.instrument.send_lag_p99_s == pytest.approx(5)
    assert any("sent late: p99 5e+03 ms" in reason for reason in result.reasons)


OPEN = {"concurrency": None, "arrivals": Arrivals.CONSTANT, "rate_per_s": 20}
TIMED = LoadPoint(concurrency=4, duration_s=60)


@pytest.mark.parametrize(
    ("name", "point", "words"),
    [
        ("aiperf", LoadPoint(**OPEN), ("--arrival-pattern", "constant")),
        ("aiperf", TIMED, ("--benchmark-duration", "60")),
        ("guidellm", LoadPoint(**OPEN), ("--profile", "kind=constant,rate=20")),
        ("guidellm", TIMED, ("--constraint", "kind=max_duration,seconds=60")),
        (
            "vllm",
            LoadPoint(**OPEN | {"arrivals": Arrivals.POISSON, "burstiness": 3}),
            ("--burstiness", "1"),
        ),
    ],
)
def test_pace_and_end_are_told(name, point, words):
    said = DRIVERS[name].command(
        "tool", TARGET, point, Lengths(), Path("tok"), Path("out")
    )

    assert words in pairwise(said)


@pytest.mark.parametrize(
    ("name", "change", "untold"),
    [
        ("vllm", {"point": TIMED}, "a duration"),
        ("vllm", {"point": LoadPoint(**OPEN)}, "constant arrivals"),
        ("guidellm", {"point": LoadPoint(seed=7)}, "a seed"),
        ("aiperf", {"lengths": Lengths(shared_tokens=32)}, "a shared part"),
        ("aiperf", {"lengths": Lengths(ratio=0.5)}, "several lengths"),
        ("aiperf", {"point": LoadPoint(ramp_s=2)}, "a ramp"),
        ("aiperf", {"target": replace(TARGET, body={"top_k": 1})}, "the body"),
    ],
)
def test_what_a_tool_is_not_told_is_refused(tmp_path, name, change, untold):
    asked = {"target": TARGET, "point": POINT, "lengths": Lengths()} | change

    with pytest.raises(SpecError, match=untold):
        run_external(name, *asked.values(), tokenizer=tmp_path, output=tmp_path)


def test_warm_up_that_no_tool_sends_is_not_in_the_record(tmp_path):
    recorded, wanted, _ = FILES["aiperf"]

    result = run_external(
        *("aiperf", TARGET, replace(POINT, warmup=8), Lengths()),
        tokenizer=tmp_path,
        output=tmp_path,
        executable=tool(tmp_path, f'cp "{DATA / recorded}" "{tmp_path / wanted}"'),
    )

    assert result.point.warmup == 0


@pytest.mark.parametrize("name", FILES)
def test_result_of_an_earlier_run_is_not_read_again(tmp_path, name):
    shutil.copy(DATA / FILES[name][0], tmp_path / FILES[name][1])

    with pytest.raises(MeasurementError, match="FileNotFound"):
        run_external(
            *(name, TARGET, POINT, Lengths()),
            tokenizer=tmp_path,
            output=tmp_path,
            executable="/bin/true",
        )


@pytest.mark.parametrize("end", ["wait", "exit 3"])
def test_nothing_of_a_tool_outlives_it(tmp_path, end):
    told = tmp_path / "child"
    program = tool(tmp_path, f'sleep 120 & echo $! > "{told}"; {end}')

    with pytest.raises(MeasurementError, match=r"did not end within|code 3"):
        run_external(
            *("aiperf", TARGET, POINT, Lengths()),
            tokenizer=tmp_path,
            output=tmp_path,
            executable=program,
            timeout_s=2,
        )

    child = int(told.read_text())
    wait_until(lambda: start_time(child) is None, "the end of the tool's child")


@pytest.mark.parametrize(
    ("point", "seconds"),
    [
        (LoadPoint(duration_s=4000), 7600),
        (POINT, 3600),
        (LoadPoint(**OPEN | {"requests": 80_000}), 7600),
    ],
)
def test_limit_of_a_tool_is_beyond_its_point(point, seconds):
    assert limit_s(point) == seconds


def test_requests_that_a_tool_lost_void_the_run():
    few = [ForeignRequest(k / 10, (0.1, 0.2), 5, 2) for k in range(5)]

    result = foreign_result("x", few, TARGET, LoadPoint(requests=100))

    assert "x brought 5 of 100 requests" in result.reasons
