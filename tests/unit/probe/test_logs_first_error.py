"""The first error by time is found over all logs, and known causes have a name."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pytest_pd.probe.logs import (
    cause_of,
    errors_in,
    first_error,
    read_text,
    tail,
    time_of,
)


def local(*parts: int) -> float:
    return datetime(*parts).timestamp()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2026-11-21 09:29:55 INFO x", local(2026, 11, 21, 9, 29, 55)),
        ("2026-11-21 09:29:55,250 INFO", local(2026, 11, 21, 9, 29, 55) + 0.25),
        (
            "2026-11-21T09:29:55.5Z WARN",
            datetime(2026, 11, 21, 9, 29, 55, tzinfo=UTC).timestamp() + 0.5,
        ),
        (
            "(APIServer pid=20400) INFO 11-21 09:28:27 [model.py:733] x",
            local(2026, 11, 21, 9, 28, 27),
        ),
        ("no time here", None),
        ("2026-13-45 99:99:99 nonsense", None),
    ],
)
def test_the_time_of_a_line_is_read_in_every_dialect(line, expected):
    assert time_of(line, year=2026) == expected


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-21 09:29:55 ERROR engine died",
        "(EngineCore) ERROR 11-21 09:28:27 [core.py:1] boom",
        "ValueError: no such thing",
        "vllm.exceptions.BadError: no such thing",
        "Traceback (most recent call last):",
        "thread 'main' panicked at src/main.rs:1",
        "torch.OutOfMemoryError: CUDA out of memory.",
        "OSError: [Errno 98] Address already in use",
    ],
)
def test_a_line_of_an_error_is_seen(line):
    assert len(list(errors_in("x", line))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "INFO 11-21 09:28:27 loaded with no errors",
        "INFO --log-error-stack is off",
        "INFO request finished",
        "requests: total=5 error_count=0",
    ],
)
def test_a_line_that_only_mentions_errors_is_not_one(line):
    assert list(errors_in("x", line)) == []


def write(folder, **logs):
    paths = {name: folder / f"{name}.log" for name in logs}
    for name, text in logs.items():
        paths[name].write_text(text)
    return paths


def test_the_earliest_error_wins_wherever_it_stands(tmp_path):
    logs = write(
        tmp_path,
        router="2026-11-21 09:00:09 ERROR upstream is gone\n",
        decode="2026-11-21 09:00:01 INFO fine\n2026-11-21 09:00:05 ERROR first\n",
    )

    found = first_error(logs)

    assert found is not None
    assert (found.service, found.line[-5:]) == ("decode", "first")


def test_an_error_without_a_time_has_that_of_the_line_before(tmp_path):
    logs = write(
        tmp_path,
        a="2026-11-21 09:00:03 INFO x\nValueError: late\n",
        b="2026-11-21 09:00:01 INFO x\nValueError: early\n",
    )

    found = first_error(logs)

    assert found is not None
    assert found.service == "b"


def test_no_error_is_none(tmp_path):
    assert first_error(write(tmp_path, a="all is well\n")) is None


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("OSError: [Errno 98] Address already in use", "port"),
        ("torch.OutOfMemoryError: CUDA out of memory", "GPU"),
        ("OSError: [Errno 28] No space left on device", "disk"),
        ("vllm: error: unrecognized arguments: --foo", "flags"),
        ("ModuleNotFoundError: No module named 'x'", "library"),
        ("Value error, data_parallel_external_lb can only be set when", "hybrid"),
        (
            "hf.errors.RepositoryNotFoundError: 401 Client Error",
            "HF_TOKEN",
        ),
    ],
)
def test_a_known_cause_is_named(line, word):
    assert word in cause_of(line)


@pytest.mark.parametrize(
    "line",
    [
        "OSError: [Errno 98] address already in use",
        "No available memory for the cache blocks.",
        "'x' is not a local folder and is not a valid model identifier",
        "./m does not appear to have a file named config.json",
        "Cannot access gated repo for url",
        "write: No space left on device",
        "accept4: Too many open files",
        "vllm: unexpected argument '--foo'",
        "libcudart.so.12: cannot open shared object file",
        "version `GLIBC_2.38' not found",
        "NCCL WARN Call to connect failed",
        "NIXL_ERR_BACKEND",
        "data_parallel_external_lb can only be set when",
        "Killed",
        "2026-01-01 00:00:00 ERROR pytest-pd launcher: cannot start 'x'",
    ],
)
def test_every_known_cause_counts_as_an_error(line):
    (found,) = errors_in("x", line)

    assert found.cause


def test_an_unknown_cause_stays_unnamed():
    assert cause_of("ValueError: 42") == ""


def test_the_tail_is_the_last_lines(tmp_path):
    (tmp_path / "x.log").write_text("".join(f"{n}\n" for n in range(100)))

    assert tail(tmp_path / "x.log", 3) == ["97", "98", "99"]


def test_a_long_line_is_cut_in_the_tail(tmp_path):
    (tmp_path / "x.log").write_text("y" * 5000 + "\n")

    (line,) = tail(tmp_path / "x.log")
    assert len(line) == 201


def test_a_log_that_is_not_there_is_empty(tmp_path):
    assert tail(tmp_path / "none.log") == []


def test_bytes_that_are_no_text_are_shown_somehow(tmp_path):
    (tmp_path / "x.log").write_bytes(b"\xff\xfe ERROR\n")

    assert "ERROR" in read_text(tmp_path / "x.log")


def test_only_what_came_after_an_offset_is_read(tmp_path):
    (tmp_path / "x.log").write_text("old new")

    assert read_text(tmp_path / "x.log", offset=4) == "new"


def test_a_log_that_was_set_aside_is_read_from_its_begin(tmp_path):
    (tmp_path / "x.log").write_text("fresh")

    assert read_text(tmp_path / "x.log", offset=1000) == "fresh"
