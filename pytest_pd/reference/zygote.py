"""Many engines from one import: a process that forks an engine per line it reads.

    python -m pytest_pd.reference zygote

Each line on standard input is a JSON object that asks for one engine:

    {"name": "prefill-0", "argv": ["fixtures/models/tiny", "--port", "8100"],
     "env": {"VLLM_NIXL_SIDE_CHANNEL_PORT": "5600"}, "log": "prefill-0.log"}

``argv`` are the words after ``serve``. Each line on standard output tells of one:

    {"name": "prefill-0", "pid": 4711}
    {"name": "prefill-0", "pid": 4711, "exit_code": 0}

A request that cannot be read or begun is answered with ``{"name": ..., "error": ...}``.
Every engine leads a session of its own. When standard input ends, or at SIGTERM or
SIGINT, all of them are told to end, and killed after `GRACE_S`; so none outlives the
process that holds the other end of the pipe.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

GRACE_S = 5.0
_POLL_S = 0.02
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Birth:
    """One engine to start."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    log: str

    @classmethod
    def parse(cls, line: bytes) -> Birth:
        """Read one line.

        Raises:
            ValueError: it is not JSON.
            KeyError, TypeError: a key is missing, or not of its type.
        """
        content = json.loads(line)
        argv = tuple(str(word) for word in content["argv"])
        env = {str(k): str(v) for k, v in dict(content.get("env", {})).items()}
        return cls(str(content["name"]), argv, env, str(content["log"]))


class Zygote:
    """Forks engines and reports their ends.

    The process has one thread and has imported everything that an engine needs.
    """

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._unread = b""
        self._open = True

    def run(self) -> int:
        """Serve until standard input ends or a signal comes, then end all engines."""
        wake, bell = os.pipe()
        os.set_blocking(bell, False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(wake, selectors.EVENT_READ)
            while self._open:
                for key, _ in selector.select():
                    self._read(key.fd, (wake, bell))
                self._reap()
        self._end_all()
        return 0

    def _on_signal(self, number: int, frame: object) -> None:
        """The selector wakes up by the pipe; all but SIGCHLD ends the loop."""
        if number != signal.SIGCHLD:
            self._open = False

    def _read(self, descriptor: int, bell: Sequence[int]) -> None:
        data = os.read(descriptor, _READ_BYTES)
        if descriptor != 0:
            return
        if not data:
            self._open = False
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            if line.strip():
                self._bear(line, bell)

    def _bear(self, line: bytes, bell: Sequence[int]) -> None:
        try:
            birth = Birth.parse(line)
            log = os.open(birth.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except (ValueError, KeyError, TypeError, OSError) as exc:
            name = line.decode(errors="replace")[:80]
            _tell(name=name, error=f"{type(exc).__name__}: {exc}")
            return
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for descriptor in bell:
                os.close(descriptor)
            _live(birth, log)
        os.close(log)
        self._names[pid] = birth.name
        _tell(name=birth.name, pid=pid)

    def _reap(self) -> None:
        for pid in tuple(self._names):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                _tell(name=self._names.pop(pid), pid=pid, exit_code=code)

    def _end_all(self) -> None:
        """End the engines: told first, killed when the grace is over."""
        deadline = time.monotonic() + GRACE_S
        self._send(signal.SIGTERM)
        while self._names and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            self._reap()
        self._send(signal.SIGKILL)
        while self._names:
            time.sleep(_POLL_S)
            self._reap()

    def _send(self, number: signal.Signals) -> None:
        for pid in self._names:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _live(birth: Birth, log: int) -> NoReturn:
    """Be an engine, in the child, until its end; never returns to the zygote."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, copy in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, copy)
        os.close(nothing)
        os.close(log)
        os.environ.update(birth.env)
        from pytest_pd.reference.__main__ import main

        code = main(["serve", *birth.argv])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _tell(**content: Any) -> None:
    os.write(1, json.dumps(content).encode() + b"\n")


def run() -> int:
    """Import what engines need, freeze it against the collector, and fork on demand."""
    from pytest_pd.reference import serve  # noqa: F401

    gc.collect()
    gc.freeze()
    return Zygote().run()
