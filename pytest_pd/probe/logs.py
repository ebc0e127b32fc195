"""Logs of services: their ends, their first error by time, causes by name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pytest_pd.probe.engine_causes import ENGINE_CAUSES

TAIL_LINES = 20
LINE_SHOWN = 200
TAIL_BYTES = 64 * 2**10
SCAN_BYTES = 8 * 2**20

ERROR = re.compile(
    r"\b(?:ERROR|CRITICAL|FATAL|PANIC)\b|\bTraceback \(most recent call last\)"
    r"|^\S*(?:Error|Exception)\b: |\bpanicked at\b|Segmentation fault|\bOOM\b",
)
EXCEPTION = re.compile(r"(?:^|\s)([\w.]*(?:Error|Exception|Exit)): \S")
NOISE = re.compile(r"\b(?:no|0|without) errors?\b|error_count=0|--[\w-]*error", re.I)

ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)[T ](?P<time>\d\d:\d\d:\d\d)(?:[.,](?P<sub>\d{1,9}))?"
    r"(?P<zone>Z|[+-]\d\d:?\d\d)?"
)
SHORT = re.compile(r"\b(?P<date>\d\d-\d\d) (?P<time>\d\d:\d\d:\d\d)(?:\.(?P<sub>\d+))?")

CAUSES = (
    (r"address already in use|EADDRINUSE", "a port of it is taken by another process"),
    (r"CUDA out of memory|OutOfMemoryError", "the GPU has too little free memory"),
    (r"No available memory for the cache blocks", "no GPU memory is left for the KV "
     "cache: lower max-model-len or raise gpu-memory-utilization"),
    (r"is not a local folder and is not a valid model|Repository Not Found"
     r"|does not appear to have a file named config\.json|model path .*not exist",
     "the model path does not exist on that node"),
    (r"gated repo|401 Client Error", "the model needs a token: set HF_TOKEN"),
    (r"No space left on device|ENOSPC", "a disk is full"),
    (r"Too many open files", "the limit of open files is too low: ulimit -n"),
    (r"unrecognized arguments|unexpected argument|No such option",
     "this version does not know one of its flags"),
    (r"ModuleNotFoundError|ImportError|cannot open shared object",
     "a library is missing in its environment"),
    (r"GLIBC_\d|Exec format error", "it was built for another system"),
    (r"NCCL error|NCCL WARN.*(?:fail|error)", "NCCL could not connect the GPUs"),
    (r"NIXL_ERR|nixl.*(?:fail|error)", "NIXL could not move KV"),
    (r"data_parallel_external_lb can only be set", "TP over several nodes cannot be "
     "combined with hybrid load balancing"),
    (r"Killed$|oom-kill|Out of memory: Kill", "the machine ran out of memory"),
    (r"pytest-pd launcher: cannot start", "its program cannot be started"),
)  # fmt: skip

SIGNS = (
    *("error", "exception", "traceback", "critical", "fatal", "panic", "exit:"),
    *("segmentation", "oom", "killed", "in use", "memory", "not a local folder"),
    *("repository not found", "does not appear", "model path", "gated repo"),
    *("no space", "enospc", "eaddrinuse", "too many open", "unrecognized"),
    *("unexpected argument", "no such option", "shared object", "glibc_"),
    *("exec format", "nccl warn", "nixl", "data_parallel_external", "cannot start"),
)
"""Every error and cause has one of these in small letters: looked for first, for
patterns over each line of a long log would take seconds."""

TIME_LINES = 50


@dataclass(frozen=True, slots=True)
class LogError:
    """One line that says that something went wrong.

    Attributes:
        at_s: Seconds since the epoch, of this line or of one shortly before it.
        cause: What it usually means; empty when nobody knows.
    """

    service: str
    line: str
    at_s: float | None
    cause: str = ""

    def __str__(self) -> str:
        return f"first error, of {self.service}: {_cut(self.line)}"


def _cut(line: str) -> str:
    """Return a line of which no more is shown than anybody reads."""
    return line if len(line) <= LINE_SHOWN else f"{line[:LINE_SHOWN]}…"


def tail(path: Path, lines: int = TAIL_LINES) -> list[str]:
    """Return the last lines of a log, long ones cut; none when it cannot be read."""
    found = read_text(path, most_bytes=TAIL_BYTES).splitlines()[-lines:]
    return [_cut(line) for line in found]


def read_text(path: Path, *, offset: int = 0, most_bytes: int = SCAN_BYTES) -> str:
    """Return the last `most_bytes` of what a log holds from `offset` on.

    A log shorter than `offset` was set aside when it was full: all that there is
    now was written since.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            begin = offset if offset <= size else 0
            file.seek(max(begin, size - most_bytes))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def errors_in(
    service: str, text: str, *, year: int | None = None
) -> Iterator[LogError]:
    """Yield the lines that tell of errors, in the order of the log."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if is_error(line):
            before = reversed(lines[max(0, number - TIME_LINES) : number + 1])
            times = (time_of(each, year=year) for each in before)
            at_s = next((at_s for at_s in times if at_s is not None), None)
            yield LogError(service, line.strip(), at_s, cause_of(line))


def is_error(line: str) -> bool:
    """Whether a line tells of an error by its level or an exception's name."""
    small = line.lower()
    if not any(sign in small for sign in SIGNS) or NOISE.search(line):
        return False
    return bool(ERROR.search(line) or EXCEPTION.search(line) or cause_of(line))


def cause_of(line: str) -> str:
    """Return what a line usually means; empty when nobody knows."""
    for pattern, cause in (*ENGINE_CAUSES, *CAUSES):
        if re.search(pattern, line, re.I):
            return cause
    return ""


def time_of(line: str, *, year: int | None = None) -> float | None:
    """Return the time that a line carries, in seconds since the epoch.

    Times without a zone are this machine's local time, as Python's logging writes
    them; ``MM-DD`` without a year is vLLM's.
    """
    head = line[:120]
    if match := ISO.search(head):
        stamp = f"{match['date']}T{match['time']}{match['zone'] or ''}"
    elif match := SHORT.search(head):
        this_year = year or datetime.now(UTC).year
        stamp = f"{this_year}-{match['date']}T{match['time']}"
    else:
        return None
    try:
        begun_s = datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):  # no such day, or none that this host can say
        return None
    return begun_s + float(f"0.{match['sub'] or 0}")


def first_error(logs: Mapping[str, Path]) -> LogError | None:
    """Return the first error by time over all logs; one without a time comes last.

    A line with a known cause goes before an equally early one without.
    """
    found = [
        (math.inf if error.at_s is None else error.at_s, not error.cause, n, error)
        for name, path in logs.items()
        for n, error in enumerate(errors_in(name, read_text(path)))
    ]
    return min(found, key=lambda item: item[:3])[3] if found else None
