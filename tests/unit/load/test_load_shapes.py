"""Open loop, conversations, chat, TLS, keys, shards: each against a server."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import ssl
import subprocess
import sys
from functools import partial

import httpx
import numpy as np
import pytest

from pytest_pd.errors import MeasurementError, ProcessDied, SpecError
from pytest_pd.load.bench import Bench
from pytest_pd.load.calibrate import Rhythm
from pytest_pd.load.host import prompt_scheduling
from pytest_pd.load.httpx_engine import HttpxEngine
from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.run import run_load
from pytest_pd.load.shards import boot_id
from pytest_pd.load.target import Target


def numbered(count, tokens=4):
    return [Prompt(text=f"a {k} b", output_tokens=tokens) for k in range(count)]


def test_open_loop_sends_at_the_rate_whatever_the_answers_take(truth):
    point = LoadPoint(
        concurrency=None, arrivals=Arrivals.CONSTANT, rate_per_s=100, requests=30
    )

    result = run_load(Target(url=truth.url), point, numbered(30, tokens=40))

    rows = result.rows()
    assert result.counts() == {"ok": 30}
    assert np.ptp(rows["intended_ns"]) == pytest.approx(0.29e9, rel=1e-3)
    assert result.instrument.most_in_flight > 10


def test_conversation_brings_all_that_was_said(serve, wire):
    words = [wire.text(f" w{k}", "stop") for k in range(3)]
    server = serve(*(wire.answer(word, wire.done) for word in words))
    prompts = [
        Prompt(text="one", session=0),
        Prompt(text=" two", follows=0, session=0),
        Prompt(text=" three", follows=1, session=0),
    ]

    result = run_load(Target(url=server.url), LoadPoint(min_waves=1), prompts)

    assert result.counts() == {"ok": 3}
    sent = [json.loads(r.partition(b"\r\n\r\n")[2])["prompt"] for r in server.requests]
    assert sent == ["one", "one w0 two", "one w0 two w1 three"]
    rows = result.rows()
    assert (rows["intended_ns"][1:] >= rows["end_ns"][:-1]).all()


def test_chat_asks_as_chat(truth, serve, wire):
    server = serve(wire.answer(wire.text("a", "stop"), wire.done))
    target = Target(url=server.url, model="m", endpoint="/v1/chat/completions")

    run_load(target, LoadPoint(min_waves=1), numbered(1))

    body = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
    assert body["messages"] == [{"role": "user", "content": "a 0 b"}]
    assert body["max_completion_tokens"] == 4
    assert server.requests[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    target = Target(url=truth.url, endpoint="/v1/chat/completions")
    assert run_load(target, LoadPoint(min_waves=1), numbered(1)).counts() == {"ok": 1}


def test_token_ids_are_sent_as_a_list(serve, wire):
    server = serve(wire.answer(wire.text("a", "stop"), wire.done))
    prompt = Prompt(token_ids=(5, 6, 7), input_tokens=3)

    run_load(Target(url=server.url), LoadPoint(min_waves=1), [prompt])

    body = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
    assert body["prompt"] == [5, 6, 7]


def test_key_is_sent_and_shown_nowhere(serve, wire, tmp_path):
    server = serve(wire.answer(wire.text("a", "stop"), wire.done))
    target = Target(url=server.url, headers={"Authorization": "Bearer s3cret"})

    result = run_load(target, LoadPoint(min_waves=1), numbered(1))

    assert b"Authorization: Bearer s3cret" in server.requests[0]
    assert "s3cret" not in repr(target) + repr(result)
    assert b"s3cret" not in result.save(tmp_path / "r.npz").read_bytes()


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nY: b"},
        {"X": "Y: b\v"},
        {"X": "Y: b\x7f"},
        {"Content-Length": "5"},
        {"Hä": "x"},
    ],
)
def test_headers_that_break_http_are_refused_without_their_value(headers):
    with pytest.raises(SpecError) as caught:
        Target(url="http://h", headers=headers)

    assert "Y: b" not in str(caught.value)


@pytest.mark.parametrize("url", ["h:80", "ftp://h", "http://", "http://h:port"])
def test_wrong_urls_are_refused(url):
    with pytest.raises(SpecError, match="URL"):
        Target(url=url)


def test_base_path_of_the_url_is_kept(serve, wire):
    server = serve(wire.answer(wire.text("a", "stop"), wire.done))

    run_load(Target(url=f"{server.url}/proxy/"), LoadPoint(min_waves=1), numbered(1))

    assert server.requests[0].startswith(b"POST /proxy/v1/completions HTTP/1.1")


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A self-signed certificate for 127.0.0.1: (PEM of both, PEM to trust)."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem = made.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    (folder / "both.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + pem
    )
    return folder / "both.pem", folder / "ca.pem"


@pytest.mark.parametrize("engine", ["kernel", "httpx"])
def test_tls_works_and_keeps_kernel_stamps(serve, wire, certificate, engine):
    both, trusted = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    answer = wire.answer(wire.text("a"), wire.text("b", "stop"), wire.done)
    server = serve(answer, tls=context)
    target = Target(url=server.url, ca_file=trusted)

    point = LoadPoint(requests=3, min_waves=1)
    result = run_load(target, point, numbered(3), engine=engine)

    assert result.counts() == {"ok": 3}
    assert next(result.traces()).text == "ab"
    assert server.accepted == 1
    assert result.instrument.stamp_source == "kernel"


def test_certificate_nobody_vouches_for_is_refused(serve, wire, certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[0])
    server = serve(wire.answer(wire.done), tls=context)

    point = LoadPoint(requests=1, timeout_s=10)
    result = run_load(Target(url=server.url), point, numbered(1))

    assert result.counts() == {"connect": 1}
    assert "certificate" in next(iter(result.errors.values())).lower()


def test_httpx_engine_has_kernel_stamps_by_our_transport(truth, load_with):
    result = load_with("httpx", truth.url, requests=4)

    assert result.counts() == {"ok": 4}
    assert result.instrument.engine == "httpx"
    assert result.instrument.stamp_source == "kernel"
    assert result.instrument.connections_opened == 1


def test_httpx_with_its_own_transport_says_so(truth, load_with, monkeypatch):
    monkeypatch.setattr(
        "pytest_pd.load.httpx_engine.HttpxEngine",
        partial(HttpxEngine, transport=httpx.AsyncHTTPTransport()),
    )
    result = load_with("httpx", truth.url, requests=4)

    assert result.counts() == {"ok": 4}
    assert result.instrument.stamp_source == "user"


WITHOUT_EPOLL = """
import select, sys
for name in [n for n in vars(select) if n.lower().startswith("epoll")]:
    delattr(select, name)
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target
prompts = [Prompt(text=f"a {k}", output_tokens=4) for k in range(4)]
result = run_load(Target(url=sys.argv[1]), LoadPoint(requests=4), prompts)
print(result.instrument.engine, result.counts())
"""


def test_host_without_epoll_takes_the_second_engine(truth):
    """As on macOS, where the module `select` does not even name it."""
    words = [sys.executable, "-c", WITHOUT_EPOLL, truth.url]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60)

    assert said.stdout == "httpx {'ok': 4}\n", said.stderr


def test_unknown_engine_is_named(truth, load_with):
    with pytest.raises(SpecError, match="load engine 'curl' is not known"):
        load_with("curl", truth.url)


def test_without_kernel_stamps_the_engine_says_so(truth, load, monkeypatch):
    monkeypatch.setattr(
        "pytest_pd.load.connection.enable_kernel_stamps", lambda sock: False
    )

    result = load(truth.url, requests=4)

    assert result.counts() == {"ok": 4}
    assert result.instrument.stamp_source == "user"
    assert result.instrument.user_stamp_share == 1.0


def test_shards_make_one_record(truth):
    point = LoadPoint(concurrency=4, requests=16, warmup=4, min_waves=1)
    ticks = []

    result = run_load(
        Target(url=truth.url), point, numbered(20), shards=2, on_tick=ticks.append
    )

    assert result.counts() == {"ok": 16}
    assert result.reasons == ()
    assert [t.index for t in result.traces()] == list(range(4, 20))
    assert all(t.text == " w000 w001 w002 w003" for t in result.traces())
    assert result.instrument.shards == 2
    assert result.instrument.most_in_flight == 4
    assert result.instrument.clock_uncertainty_s == 0, "one kernel, one clock"
    assert max(tick.done for tick in ticks) <= 16


def test_shards_start_together(truth):
    point = LoadPoint(concurrency=4, requests=4, min_waves=1)

    rows = run_load(Target(url=truth.url), point, numbered(4), shards=2).rows()

    first = [rows["intended_ns"][rows["shard"] == k].min() for k in (0, 1)]
    assert first[0] == first[1]


def test_shards_can_be_started_by_any_command(truth, monkeypatch):
    """As behind ssh or srun: another program, another boot id, so another clock."""
    monkeypatch.setattr("pytest_pd.load.shards.boot_id", lambda: "another host")
    assert boot_id() != "another host"
    point = LoadPoint(concurrency=2, requests=8, min_waves=1)
    prefix = ("sh", "-c", f'shift; exec "{sys.executable}" "$@"', "-")

    result = run_load(Target(url=truth.url), point, numbered(8), shards=[prefix])

    assert result.counts() == {"ok": 8}
    assert 0 < result.instrument.clock_uncertainty_s < 0.1


def test_a_dead_shard_is_told_with_its_last_words(truth):
    broken = ("sh", "-c", "echo no python here >&2; exit 3", "-")

    with pytest.raises(ProcessDied, match="no python here") as caught:
        run_load(
            Target(url=truth.url),
            LoadPoint(concurrency=2, requests=4),
            numbered(4),
            shards=[(), broken],
        )

    assert "code 3" in str(caught.value)


def test_what_a_shard_says_wrongly_is_told(truth):
    chatty = ("sh", "-c", "echo Last login: Monday; cat >&2", "-")

    with pytest.raises(ProcessDied, match="said b'Last login: Monday"):
        run_load(Target(url=truth.url), LoadPoint(), numbered(1), shards=[chatty])


def test_any_error_while_shards_run_is_told_as_itself(truth):
    def tick(_):
        raise ZeroDivisionError("in a tick")

    point = LoadPoint(concurrency=2, requests=40, min_waves=1)

    with pytest.raises(ZeroDivisionError, match="in a tick"):
        run_load(Target(url=truth.url), point, numbered(40), shards=2, on_tick=tick)


def test_loop_runs_first_where_it_may_and_says_how(truth, load):
    """And afterwards everything is as it was, for this thread and for children."""
    before = os.sched_getscheduler(0)

    result = load(truth.url, requests=4)

    assert os.sched_getscheduler(0) == before
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, before, os.sched_param(0))
        allowed = "fifo"
    except PermissionError:
        allowed = "normal"
    assert result.instrument.scheduling == allowed


def test_normal_scheduling_is_left_alone():
    with prompt_scheduling("normal") as policy:
        assert policy == "normal"
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
    with (
        pytest.raises(SpecError, match="'soon' is not known"),
        prompt_scheduling("soon"),
    ):
        pass


def test_refused_priority_is_no_error(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)

    with prompt_scheduling() as policy:
        assert policy == "normal"


@pytest.fixture
def bench():
    made = Bench([sys.executable])
    yield made
    made.close()


def test_a_bench_sends_point_after_point_with_one_process(truth, bench):
    target = Target(url=truth.url)
    ticks = []
    runs = [
        bench.run(target, LoadPoint(requests=6), numbered(6), on_tick=ticks.append)
        for _ in range(2)
    ]

    assert [run.counts() for run in runs] == [{"ok": 6}, {"ok": 6}]
    assert bench._running[0].process.poll() is None
    assert all(run.tokenizer == "unknown" and run.url == truth.url for run in runs)


def test_a_bench_spreads_its_shards_over_machines(truth, bench):
    """One process for each command, kept for the next point; the records are one."""
    bench.more = [[sys.executable, "-B"]]

    runs = [
        bench.run(
            Target(url=truth.url),
            LoadPoint(concurrency=3, requests=9, min_waves=1),
            numbered(9),
            shards=shards,
        )
        for shards in (2, 3, 1)
    ]

    assert [run.counts() for run in runs] == [{"ok": 9}] * 3
    assert [run.instrument.shards for run in runs] == [2, 3, 1]
    assert [len(set(run.rows()["shard"])) for run in runs] == [2, 3, 1]
    started = [shard.process.args[1] for shard in bench._running.values()]
    assert started == ["-m", "-B", "-m"]


def test_a_bench_calibrates_itself_where_it_runs(bench):
    rhythm = Rhythm(concurrency=2, ttft_s=0.01, itl_s=0.002, output_tokens=8)

    found = bench.calibrate(rhythm, duration_s=0.1)

    assert found.rhythm == rhythm
    assert found.requests >= 4


def test_a_rhythm_that_cannot_be_is_told(bench):
    rhythm = Rhythm(concurrency=0, ttft_s=0.01, itl_s=0.002, output_tokens=8)

    with pytest.raises((MeasurementError, ProcessDied)):
        bench.calibrate(rhythm, duration_s=0.1)


def test_a_bench_that_dies_is_told_and_started_anew(truth, bench):
    target = Target(url=truth.url)
    bench.run(target, LoadPoint(requests=2), numbered(2))
    bench._running[0].process.kill()
    bench._running[0].process.wait()
    assert bench.run(target, LoadPoint(requests=2), numbered(2)).counts() == {"ok": 2}

    nowhere = Bench([sys.executable, "-c", "raise SystemExit('no such host')"])
    with pytest.raises(ProcessDied, match="no such host"):
        nowhere.run(target, LoadPoint(requests=2), numbered(2))
