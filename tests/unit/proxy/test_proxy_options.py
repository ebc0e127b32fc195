"""The command line: what it accepts, and how it refuses."""

from __future__ import annotations

import argparse

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.proxy import command
from pytest_pd.proxy.ask import Transfer
from pytest_pd.proxy.fault import Fault
from pytest_pd.proxy.options import ProxyOptions
from pytest_pd.proxy.worker import Address

URLS = ("--prefill-url", "http://p:1", "--decode-url", "http://d:1")


def options(*words):
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.make_options(parser.parse_args([*words]))


def test_the_third_seed_s_command_line():
    found = options(
        "--port", "8000",
        "--prefill-url", "http://localhost:8100/v1/completions",
        "--decode-url", "http://localhost:8200/v1/completions",
        "--rate-limit", "40",
        "--max-concurrent", "100",
    )  # fmt: skip

    assert found.prefill == (Address("http://localhost:8100"),)
    assert found.decode == (Address("http://localhost:8200"),)
    assert (found.rate_limit_rps, found.max_concurrent) == (40.0, 100)


def test_what_is_not_said_is_as_the_options_say():
    given = ProxyOptions((Address("http://p:1"),), (Address("http://d:1"),))

    assert options(*URLS) == given


def test_workers_may_be_listed_or_repeated():
    listed = options("--prefill-url", "http://a:1", "http://b:1", *URLS[2:])
    repeated = options(
        "--prefill-url", "http://a:1", "--prefill-url", "http://b:1", *URLS[2:]
    )

    assert listed == repeated
    assert len(listed.prefill) == 2


def test_a_worker_named_twice_is_refused():
    with pytest.raises(SpecError, match="--decode-url names http://d:1 twice"):
        options(*URLS, "--decode-url", "http://d:1/v1/completions")


def test_ranks_of_one_server_are_different_workers():
    found = options("--prefill-url", "http://a:1@0", "http://a:1@1", *URLS[2:])

    assert [address.rank for address in found.prefill] == [0, 1]


@pytest.mark.parametrize(
    "words",
    [URLS[:2], URLS[2:], (*URLS, "--transfer", "none"), ()],
    ids=["no_decode", "no_prefill", "none_with_prefill", "nothing"],
)
def test_roles_and_transfer_must_fit(words):
    with pytest.raises(SpecError) as caught:
        options(*words)

    assert caught.value.hint


def test_decode_alone_needs_transfer_none():
    found = options(*URLS[2:], "--transfer", "none")

    assert (found.prefill, found.transfer) == ((), Transfer.NONE)


def test_the_key_comes_from_the_environment_and_is_not_shown(monkeypatch):
    monkeypatch.setenv("WORKER_KEY", "hunter2")

    found = options(*URLS, "--api-key-env", "WORKER_KEY")

    assert found.api_key == "hunter2"
    assert "hunter2" not in repr(found)


def test_a_key_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("WORKER_KEY", raising=False)

    with pytest.raises(SpecError, match="'WORKER_KEY'"):
        options(*URLS, "--api-key-env", "WORKER_KEY")


def test_faults_come_as_json_as_a_list_and_as_a_file(tmp_path):
    path = tmp_path / "faults.json"
    path.write_text('[{"kind": "cut", "at": 3}]')

    found = options(
        *URLS, "--fault", '{"kind": "no_done"}', "--fault", f"@{path}"
    ).faults

    assert found == (Fault("no_done"), Fault("cut", at=3))


def test_a_fault_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SpecError) as caught:
        options(*URLS, "--fault", f"@{tmp_path / 'absent.json'}")

    assert "absent.json" in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ("--port", "65536"),
        ("--port", "http"),
        ("--rate-limit", "-1"),
        ("--rate-limit", "nan"),
        ("--max-concurrent", "1.5"),
        ("--queue-timeout-s", "0"),
        ("--policy", "random"),
        ("--transfer", "rdma"),
    ],
)
def test_values_out_of_range_are_refused(words, capsys):
    with pytest.raises(SystemExit) as caught:
        options(*URLS, *words)

    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err
