"""Send the files of a run to whoever holds the other end of standard output.

A program of its own for a machine that may have another Python (3.6 and later):
``python3 -S -E ssh_mirror.py RUN_DIR``. Every line is one JSON object:

    {"file": relative path, "offset": n, "data": base64}    bytes of a log or record
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
from typing import Any, Callable, Dict, Iterator, List, Optional

LOOK_S = 0.2
BEAT_EVERY = 5
CHUNK_BYTES = 1 << 18


class Mirror:
    """What was sent so far."""

    def __init__(self, root: str, start_time: Callable[[int], Optional[int]]) -> None:
        self.root = root
        self.start_time = start_time
        self.sent = {}  # type: Dict[str, int]
        self.gone = []  # type: List[str]

    def look(self) -> Iterator[Dict[str, Any]]:
        """Yield what is new, records last."""
        # A launcher writes its last record before it ends: judge first, then list.
        over = [path for path in self.records() if self.is_over(path)]
        records = self.records()
        for path in (*self.logs(), *records):
            yield from self.news(path)
        for path in over:
            name = os.path.basename(path)[: -len(".started.json")]
            if name not in self.gone:
                self.gone.append(name)
                yield {"gone": name}

    def records(self) -> List[str]:
        """Return every file of ``state/``."""
        return sorted(glob.glob(os.path.join(self.root, "state", "*.json")))

    def logs(self) -> List[str]:
        """Return every file below ``logs/``."""
        found = []
        for folder, _, names in os.walk(os.path.join(self.root, "logs")):
            found += [os.path.join(folder, name) for name in names]
        return found

    def is_over(self, path: str) -> bool:
        """Whether a record tells of a launcher that does not live any more."""
        if not path.endswith(".started.json"):
            return False
        try:
            with open(path) as file:
                record = json.load(file)
        except (OSError, ValueError):
            return False
        lives = self.start_time(record["launcher_pid"])
        return lives is None or lives != record["launcher_start_time"]

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
