"""Start one service here, and end all of it when its lease stops.

A program of its own, copied to the machine of the service, which may have
another Python (3.6 and later) and nothing of ours: ``python3 -S -E launcher.py``
with one JSON object on standard input, so that neither quoting nor a command
line that everybody can read stands between the plan and the service:

    name, mark, argv, env, env_unset, cwd, log, log_cap_bytes, state,
    lease, ttl_s, poll_s, grace_s, secrets

What of `secrets` the service prints is soon overwritten in its log by as many ``*``.
`mark` is ``<run id>/<topology>/<service>``; it stands in the environment of all
that is started, as PYTEST_PD_SERVICE, and proves later whose a process is.

It writes ``<state>/<name>.started.json`` (pid, start time, boot, host) and
``<state>/<name>.ended.json`` (exit code, reason, wall time), each in one step.
When it has ended, nothing that the service started is left: it adopts every
orphan (PR_SET_CHILD_SUBREAPER), so a daemon that called setsid() is found too.

Signals: TERM, INT and HUP stop the service with its grace; USR1 stops it now.
"""
# ruff: noqa: PTH100, PTH103, PTH105, PTH110, PTH115, PTH116, PTH118, PTH120, PTH123, PTH208

import contextlib
import ctypes
import fnmatch
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

MARK = "PYTEST_PD_SERVICE"
BYE = b"bye"
LAST_GRACE_S = 2.0
LEASE_GRACE_S = 3.0
TICK_S = 0.02
NOT_STARTED = 127
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def content(path: str) -> bytes:
    """Return what a file holds; empty when it cannot be read."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""


def stat_fields(pid: int) -> "list[bytes]":
    """Return /proc/PID/stat from the state on; empty when there is no such process."""
    return content(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def start_time(pid: int) -> "int | None":
    """Return when a process started, in ticks since boot; None when it is gone.

    A zombie counts as gone: it runs nothing and only waits for its parent.
    """
    fields = stat_fields(pid)
    if not fields or fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def place() -> "dict[str, str]":
    """Name this boot, host and namespace of pids; empty where the kernel does not."""
    boot = content("/proc/sys/kernel/random/boot_id").decode().strip()
    link = "/proc/self/ns/pid"
    pids = os.readlink(link) if os.path.exists(link) else ""
    return {"boot_id": boot, "host": socket.gethostname(), "pid_ns": pids}


def descendants(root: int) -> "list[int]":
    """Return every living process below `root`, parents before children."""
    children: dict[int, list[tuple[int, bool]]] = {}
    for name in os.listdir("/proc"):
        fields = stat_fields(int(name)) if name.isdigit() else None
        if fields:
            alive = fields[0] not in (b"Z", b"X")
            children.setdefault(int(fields[1]), []).append((int(name), alive))
    found, queue = [], [root]
    while queue:
        for pid, alive in children.get(queue.pop(0), []):
            queue.append(pid)
            if alive:
                found.append(pid)
    return found


def send(pids: "list[int]", number: int) -> None:
    """Signal each process; one that is gone already is no error."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def private(path: str, flags: int) -> int:
    """Open a file, an `opener`; a new one is for its owner only."""
    return os.open(path, flags, 0o600)


def write_json(path: str, record: "dict[str, Any]") -> None:
    """Write a whole file or none, readable by its owner only."""
    partial = f"{path}.{os.getpid()}.partial"
    with open(partial, "w", opener=private) as file:
        json.dump(record, file)
    os.replace(partial, path)


def prctl(option: int, value: int) -> bool:
    """Ask the kernel for a process attribute; False where there is none such."""
    with contextlib.suppress(AttributeError, OSError):
        return bool(ctypes.CDLL(None).prctl(option, value, 0, 0, 0) == 0)
    return False


class Lease:
    """A file that somebody keeps changing, and how long it has not changed.

    Only time in which this process looked is counted: after a pause of the whole
    machine the holder can renew before anything is ended.
    """

    def __init__(self, path: str, ttl_s: float, poll_s: float) -> None:
        self.path = path
        self.ttl_s = ttl_s
        self.most_s = 4 * poll_s
        self.last: bytes | None = None
        self.unchanged_s = 0.0
        self.looked_s = time.monotonic()

    def over(self) -> bool:
        """Look once; True when it was given back or has not changed for the TTL."""
        now_s = time.monotonic()
        self.unchanged_s += min(now_s - self.looked_s, self.most_s)
        self.looked_s = now_s
        text = content(self.path)  # one that cannot be read says nothing
        if text.strip() == BYE:
            return True
        if text and text != self.last:
            self.last, self.unchanged_s = text, 0.0
        return self.unchanged_s > self.ttl_s


def environment(request: "dict[str, Any]") -> "dict[bytes, bytes]":
    """Return what the service inherits, less the patterns, plus the request's."""
    patterns = [to_bytes(p) for p in request.get("env_unset", [])]
    kept = {
        name: value
        for name, value in os.environb.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    for name, value in request.get("env", {}).items():
        kept[to_bytes(name)] = to_bytes(value)
    kept[to_bytes(MARK)] = to_bytes(request["mark"])
    return kept


def to_bytes(text: str) -> bytes:
    """Encode a word of the request, whatever the locale of this machine is."""
    return text.encode("utf-8", "surrogateescape")


def become(request: "dict[str, Any]", parent: int, report: int) -> None:
    """Turn the forked child into the service; reports errno when it cannot."""
    try:
        os.setsid()
        for number in range(1, signal.NSIG):
            with contextlib.suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(NOT_STARTED)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        argv = [to_bytes(word) for word in request["argv"]]
        if request.get("cwd"):
            os.chdir(request["cwd"])
        os.execvpe(argv[0], argv, environment(request))
    except BaseException as error:
        os.write(report, str(error).encode("utf-8", "replace"))
    finally:
        os._exit(NOT_STARTED)


class Launcher:
    """Supervises the one service of a request."""

    def __init__(self, request: "dict[str, Any]") -> None:
        self.request = request
        self.base = os.path.join(request["state"], request["name"])
        times = float(request["ttl_s"]), float(request["poll_s"])
        self.lease = Lease(request["lease"], *times)
        self.main = 0
        self.status: int | None = None
        self.stopping = False
        self.at_once = False
        self.reason = ""
        self.masked = 0
        self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def listen(self) -> None:
        """Turn signals into wake-ups of the one loop."""
        signal.set_wakeup_fd(self.wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.on_stop)
        signal.signal(signal.SIGUSR1, self.on_stop_now)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def on_stop(self, *_: Any) -> None:
        self.stopping = True

    def on_stop_now(self, *_: Any) -> None:
        self.stopping = self.at_once = True

    def pause(self, seconds: float) -> None:
        if select.select([self.wake_read], [], [], seconds)[0]:
            os.read(self.wake_read, 4096)

    def start(self) -> bool:
        """Fork and exec; False, with the reason in record and log, if impossible."""
        read, write = os.pipe()
        parent = os.getpid()
        self.main = os.fork()
        if self.main == 0:
            become(self.request, parent, write)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            why = pipe.read().decode("utf-8", "replace")
        if why:
            os.waitpid(self.main, 0)
            self.complain(f"cannot start {self.request['argv'][0]!r}: {why}")
            self.ended(NOT_STARTED, f"not started: {why}")
            return False
        self.started()
        return True

    def complain(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S ERROR pytest-pd launcher:")
        os.write(2, f"{stamp} {text}\n".encode("utf-8", "replace"))

    def started(self) -> None:
        record = {
            "name": self.request["name"],
            "mark": self.request["mark"],
            "pid": self.main,
            "start_time": start_time(self.main) or 0,
            "launcher_pid": os.getpid(),
            "launcher_start_time": start_time(os.getpid()) or 0,
            "started_s": time.time(),
            **place(),
        }
        write_json(self.base + ".started.json", record)

    def ended(self, code: int, reason: str) -> None:
        self.mask()  # who reads the record reads the log next
        record = {"exit_code": code, "reason": reason, "ended_s": time.time()}
        with contextlib.suppress(OSError):  # what is left must be ended all the same
            write_json(self.base + ".ended.json", record)

    def mask(self) -> None:
        self.masked = mask_log(self.request, self.masked)

    def reap(self) -> bool:
        """Collect dead children; False when there is no child at all any more."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.main:
                self.status = status
                self.ended(exit_code(status), self.reason or "exited")

    def watch(self) -> None:
        """Wait until the service ends, is stopped, or its lease is over."""
        while True:
            self.reap()
            if self.status is not None:
                return
            if self.stopping:
                self.reason = "stopped"
                return
            if self.lease.over():
                self.reason = "lease over"
                return
            self.mask()
            self.masked = cap_log(self.request, self.masked)
            self.pause(float(self.request["poll_s"]))

    def sweep(self) -> None:
        """End everything below this process; return when nothing is left.

        The service itself is asked first, as engines shut their own children
        down; the rest is asked once it is gone, or at half of the grace.
        """
        grace_s = float(self.request["grace_s"])
        if self.reason == "lease over":
            grace_s = min(grace_s, LEASE_GRACE_S)
        begun_s = time.monotonic()
        half_s, end_s = begun_s + grace_s / 2, begun_s + grace_s
        asked: set[int] = set()
        tick_s = TICK_S
        while self.reap():
            now_s = time.monotonic()
            below = descendants(os.getpid())
            if self.status is not None:
                end_s = min(end_s, now_s + LAST_GRACE_S) if self.main else end_s
                self.main, half_s = 0, now_s
            if self.at_once or now_s >= end_s:
                send(below, signal.SIGKILL)
            else:
                whom = below if now_s >= half_s else [self.main]
                send([pid for pid in whom if pid not in asked], signal.SIGTERM)
                asked.update(whom)
            self.mask()
            self.pause(tick_s)
            tick_s = min(tick_s * 1.5, 0.25)

    def run(self) -> None:
        """Run the service to its end; how it went is in the record."""
        if self.lease.over():
            self.ended(NOT_STARTED, "lease over")
        elif self.start():
            self.watch()
            self.sweep()
            self.mask()


def exit_code(status: int) -> int:
    """Turn a wait status into a code: negative for a signal."""
    killed = os.WIFSIGNALED(status)
    return -os.WTERMSIG(status) if killed else os.WEXITSTATUS(status)


def cap_log(request: "dict[str, Any]", masked: int) -> int:
    """Set a full log aside: the first one stays, of the later ones the last.

    Takes and returns where `mask_log` stands.
    """
    path = request["log"]
    with contextlib.suppress(OSError):
        if os.stat(path).st_size <= request["log_cap_bytes"]:
            return masked
        aside = path + (".last" if os.path.exists(path + ".first") else ".first")
        # a full disk loses what would be set aside, and gets the room back all the same
        quiet = contextlib.suppress(OSError)
        with quiet, open(path, "rb") as old, open(aside, "wb", opener=private) as new:
            new.writelines(iter(lambda: old.read(1 << 20), b""))
        mask_log({**request, "log": aside}, masked)  # what was printed meanwhile
        os.truncate(path, 0)
        return 0
    return masked


def mask_log(request: "dict[str, Any]", offset: int) -> int:
    """Overwrite secrets in a log that may grow; takes and returns where it stands."""
    secrets = [to_bytes(word) for word in request.get("secrets", [])]
    with contextlib.suppress(OSError, ValueError):  # no secrets, no log, a full disk
        longest = max(map(len, secrets))
        with open(request["log"], "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(0, offset - longest) if offset <= size else 0)
            text = file.read() if offset != size else b""
            for secret in secrets:
                at = text.find(secret)
                while at >= 0:
                    file.seek(start + at)
                    file.write(b"*" * len(secret))
                    at = text.find(secret, at + len(secret))
            return start + len(text) if text else size
    return offset


def main() -> int:
    """Read one request from standard input and run it."""
    try:
        request = json.loads(sys.stdin.buffer.read().decode("ascii"))
    except ValueError:
        return 2  # the harness died while it wrote
    os.makedirs(request["state"], exist_ok=True)
    os.makedirs(os.path.dirname(os.path.abspath(request["log"])), exist_ok=True)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for target in (1, 2):
        os.dup2(log, target)
    launcher = Launcher(request)
    launcher.listen()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    launcher.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
