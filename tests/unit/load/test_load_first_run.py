"""The whole way: a server of known truth, a load, its records."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.record import Event, Outcome, Phase
from pytest_pd.load.result import LoadResult
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target
from pytest_pd.load.validity import used_up
from pytest_pd.measure.provenance import describe


def test_every_request_and_token_is_recorded(truth, load):
    result = load(truth.url, requests=8, concurrency=2)

    assert result.counts() == {"ok": 8}
    assert result.reasons == ()
    for trace in result.traces():
        assert trace.output_tokens == 8
        assert trace.input_tokens == 3
        assert len(trace.stamp_ns) == 8
        assert trace.text == " w000 w001 w002 w003 w004 w005 w006 w007"


def test_stamps_agree_with_the_servers_own(truth, load):
    truth.take_log()
    result = load(truth.url, requests=6, concurrency=3)
    log = truth.take_log()

    serials = {int(client): int(serial) for serial, client, _, _ in log.requests}
    for trace in result.traces():
        sends = log.sends[log.sends[:, 0] == serials[trace.index]]
        # of events that share a read only the last has a stamp of its own
        alone = (trace.flags & Event.COALESCED) == 0
        stamps = trace.stamp_ns[alone]
        before, after = sends[alone, 2], sends[alone, 3]
        # the clock offset is known to a few microseconds, so 50 us are generous
        assert (stamps > before - 50_000).all()
        assert (stamps < after + 50_000).all()


def test_prompts_that_the_server_counts_otherwise_are_counted(truth):
    """The truth server counts words: three here, whatever we say."""
    prompts = [Prompt(text="a b c", input_tokens=n) for n in (3, 5, 0, 3)]

    result = run_load(Target(url=truth.url), LoadPoint(requests=4), prompts)

    assert describe(result)["input_tokens_other_than_wanted"] == 1


def test_stamps_are_the_kernels_and_say_so(truth, load):
    result = load(truth.url, requests=2)

    assert result.instrument.stamp_source == "kernel"
    assert result.instrument.user_stamp_share == 0


def test_warmup_is_recorded_and_kept_apart(truth, load):
    result = load(truth.url, requests=4, warmup=3)

    assert len(result.rows(Phase.WARMUP)) == 3
    assert len(result.rows()) == 4
    assert [t.index for t in result.traces()] == [3, 4, 5, 6]


def test_connections_are_opened_once_per_stream(truth, load):
    result = load(truth.url, requests=12, concurrency=3)

    assert result.instrument.connections_opened == 3
    assert not result.rows()["connect_ns"].any()


def test_duration_ends_the_sending_and_leaves_the_rest_unsent(truth, load):
    result = load(truth.url, requests=500, concurrency=2, duration_s=0.3)

    assert 0 < len(result.rows()) < 500
    assert result.counts() == {"ok": len(result.rows())}


def test_prompts_used_up_before_the_time_void_the_run(truth):
    prompts = [Prompt(text=f"a {k} b", output_tokens=2) for k in range(8)]

    result = run_load(
        Target(url=truth.url), LoadPoint(concurrency=2, duration_s=60), prompts
    )

    (reason,) = result.reasons
    assert re.match(r"all 8 prompts were used up after .* of 60 s", reason)


def test_one_load_process_without_prompts_before_the_time_voids_the_run(truth, load):
    result = load(truth.url, requests=500, concurrency=2, duration_s=0.3)
    timed = replace(result, point=LoadPoint(concurrency=2, duration_s=0.3))
    rows = timed.requests.copy()
    sent = np.flatnonzero(rows["outcome"] != Outcome.NOT_SENT)
    rows["shard"][sent[: len(sent) // 3]] = 1

    (reason,) = used_up(replace(timed, requests=rows))

    assert re.match(r"load process 1 had used up its \d+ prompts after", reason)
    assert not list(used_up(timed))


def test_number_that_ends_before_the_time_is_no_lack_of_prompts(truth):
    prompts = [Prompt(text=f"a {k} b", output_tokens=2) for k in range(8)]
    offered = LoadPoint(concurrency=2, requests=8, duration_s=60)

    assert run_load(Target(url=truth.url), offered, prompts).reasons == ()


def test_result_survives_saving(truth, load, tmp_path):
    result = load(truth.url, requests=3)

    again = LoadResult.load(result.save(tmp_path / "deep" / "load.npz"))

    assert again.point == result.point
    assert again.instrument == result.instrument
    assert np.array_equal(again.requests, result.requests)
    for old, new in zip(result.traces(), again.traces(), strict=True):
        assert old.text == new.text
        assert np.array_equal(old.stamp_ns, new.stamp_ns)


def test_file_of_another_make_is_refused(tmp_path):
    path = tmp_path / "other.npz"
    path.write_bytes(b"not ours")

    with pytest.raises(MeasurementError, match="no saved load result"):
        LoadResult.load(path)


def test_records_in_files_outlive_the_engine(truth, tmp_path):
    prompts = [Prompt(text="a", output_tokens=4) for _ in range(4)]
    point = LoadPoint(concurrency=1, requests=4)

    result = run_load(Target(url=truth.url), point, prompts, directory=tmp_path)

    rows = np.load(tmp_path / "requests.npy", mmap_mode="r")
    assert np.array_equal(rows, result.requests)


def test_too_few_prompts_are_refused_before_anything_is_sent():
    point = LoadPoint(requests=4, warmup=2)

    with pytest.raises(SpecError, match="5 prompts cannot feed"):
        run_load(Target(url="http://127.0.0.1:9"), point, [Prompt()] * 5)


def test_nobody_listening_is_a_failed_request_and_an_invalid_run(load, unused_port):
    result = load(f"http://127.0.0.1:{unused_port}", requests=2)

    assert result.counts() == {"connect": 2}
    assert "none of 2 requests succeeded" in result.reasons[0]
