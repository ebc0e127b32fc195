"""Send the files of a run to whoever holds the other end of standard output.

A program of its own for a machine that may have another Python (3.6 and later):
``python3 -S -E ssh_mirror.py RUN_DIR``. Every line is one JSON object:

    {"file": relative path, "offset": n, "data": base64}    bytes of a log
    {"file": relative path, "offset": 0, "data": base64}    a record, always whole
    {"gone": service}                                       its launcher has ended
    {"beat": n}                                             nothing new, still here

It looks five times a second and ends when nobody reads any more. A record is sent
after the log that belongs to it, so that a service which has ended has its whole log.
"""
# ruff: noqa: UP006, UP035, UP045, PTH116, PTH118, PTH119, PTH123, PTH207

import base64
import glob
import importlib
import json
import os
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

LOOK_S = 0.2
BEAT_EVERY = 5
CHUNK_BYTES = 1 << 18


class Mirror:
    """What was sent so far."""

    def __init__(self, root: str, start_time: Callable[[int], Optional[int]]) -> None:
        self.root = root
        self.start_time = start_time
        self.sent = {}  # type: Dict[str, int]
        self.seen = {}  # type: Dict[str, Tuple[int, int, int]]
        self.gone = []  # type: List[Tuple[str, int, int]]

    def look(self) -> Iterator[Dict[str, Any]]:
        """Yield what is new, records last."""
        # A launcher writes its last record before it ends: judge first, then list.
        over = [end for end in map(self.ended, self.records()) if end]
        records = self.records()
        for path in self.logs():
            yield from self.news(path)
        for path in records:
            yield from self.record(path)
        for end in over:
            if end not in self.gone:
                self.gone.append(end)
                yield {"gone": end[0]}

    def records(self) -> List[str]:
        """Return every file of ``state/``."""
        return sorted(glob.glob(os.path.join(self.root, "state", "*.json")))

    def logs(self) -> List[str]:
        """Return every file below ``logs/``."""
        found = []
        for folder, _, names in os.walk(os.path.join(self.root, "logs")):
            found += [os.path.join(folder, name) for name in names]
        return found

    def ended(self, path: str) -> "Optional[Tuple[str, int, int]]":
        """Return service, pid and start time of a launcher that does not live.

        The service's name alone does not do: it may be started once more.
        """
        if not path.endswith(".started.json"):
            return None
        try:
            with open(path) as file:
                record = json.load(file)
        except (OSError, ValueError):
            return None
        pid, start = record["launcher_pid"], record["launcher_start_time"]
        if self.start_time(pid) == start:
            return None
        return os.path.basename(path)[: -len(".started.json")], pid, start

    def record(self, path: str) -> Iterator[Dict[str, Any]]:
        """Yield a record whole if it is another file than the one that was sent."""
        name = os.path.relpath(path, self.root)
        try:
            with open(path, "rb") as file:
                found = os.fstat(file.fileno())
                what = found.st_mtime_ns, found.st_size, found.st_ino
                if self.seen.get(name) == what:
                    return
                data = file.read()
        except OSError:
            return
        self.seen[name] = what
        text = base64.b64encode(data).decode("ascii")
        yield {"file": name, "offset": 0, "data": text}

    def news(self, path: str) -> Iterator[Dict[str, Any]]:
        """Yield what was added to a file; all of it again if it was cut short."""
        name = os.path.relpath(path, self.root)
        try:
            size = os.stat(path).st_size
            at = self.sent.get(name, 0)
            if size < at:
                at = 0
            with open(path, "rb") as file:
                file.seek(at)
                while at < size or name not in self.sent:
                    data = file.read(CHUNK_BYTES)
                    text = base64.b64encode(data).decode("ascii")
                    yield {"file": name, "offset": at, "data": text}
                    at += len(data)
                    self.sent[name] = at
                    if not data:
                        break
        except OSError:
            return


def main() -> int:
    """Mirror until nobody reads."""
    start_time = importlib.import_module("launcher").start_time
    mirror, beat = Mirror(sys.argv[1], start_time), 0
    while True:
        beat += 1
        for item in mirror.look():
            sys.stdout.write(json.dumps(item) + "\n")
        if beat % BEAT_EVERY == 1:
            sys.stdout.write(json.dumps({"beat": beat}) + "\n")
        sys.stdout.flush()
        time.sleep(LOOK_S)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError:
        sys.exit(0)
