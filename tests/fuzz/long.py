"""Coverage-guided fuzzing of every parser, for as long as you like.

    make fuzz                                   # 20 CPU-minutes for each parser
    python tests/fuzz/long.py --seconds 60 --only topology,metrics
    python tests/fuzz/long.py --total 1200      # what is missing to 20 CPU-minutes

Mutations that reach new lines of this package are kept and mutated further, also by
the next run: they stay in the user's cache folder. What breaks a parser is written to
``tests/fuzz/corpus/<parser>/``, where the short tests find it from then on. Each run
adds its row to ``runs.jsonl``: the commit, CPU-seconds, inputs, lines reached.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pytest_pd.errors import PdError  # noqa: E402
from pytest_pd.installer.paths import cache_dir  # noqa: E402
from tests.fuzz.targets import TARGETS, seeds  # noqa: E402

CORPUS = Path(__file__).parent / "corpus"
RUNS = Path(__file__).with_name("runs.jsonl")
PACKAGE = str(ROOT / "pytest_pd")
MOST_BYTES = 20_000
POOL = 400
MOST_S = 10.0
"""No parser may think about one input for longer, CPU-seconds."""
Lines = set[tuple[str, int]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200.0, help="CPU, each")
    parser.add_argument("--total", type=float, help="CPU, each, earlier runs included")
    parser.add_argument("--only", default="", help="comma list of parsers")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(TARGETS)
    broken = 0
    for name in names:
        before = [row for row in runs() if row["parser"] == name]
        seconds = args.seconds
        if args.total is not None:
            seconds = min(seconds, args.total - sum(row["cpu_s"] for row in before))
        if seconds <= 0:
            continue
        child = multiprocessing.get_context("fork").Process(
            target=one, args=(name, seconds, args.seed + len(before))
        )
        child.start()
        child.join()
        broken += child.exitcode != 0
    return int(bool(broken))


def runs() -> list[dict[str, Any]]:
    """Return the rows of earlier runs."""
    text = RUNS.read_text() if RUNS.exists() else ""
    return [json.loads(line) for line in text.splitlines()]


def pool_of(name: str) -> Path:
    """Return where the inputs that reached new lines stay, in the user's cache."""
    return cache_dir() / "fuzz-pool" / name


def too_slow(number: int, frame: object) -> None:
    """End an input that takes too long: a pattern that looks again and again."""
    raise TimeoutError(f"an input takes more than {MOST_S:g} CPU-seconds")


def one(name: str, seconds: float, seed: int) -> None:
    """Fuzz one parser; exits with 1 if something broke it."""
    signal.signal(signal.SIGVTALRM, too_slow)
    found = by_coverage(name, seconds, random.Random(f"{name}:{seed}"))
    for data, story in found.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / hashlib.sha256(data).hexdigest()[:16]
        path.write_bytes(data)
        print(f"{name}: {path}\n{story}", flush=True)
    sys.exit(bool(found))


def by_coverage(name: str, seconds: float, draw: random.Random) -> dict[bytes, str]:
    """Mutate what reached new lines of this package; return what broke the parser."""
    target, kept = TARGETS[name], pool_of(name)
    kept.mkdir(parents=True, exist_ok=True)
    pool = seeds(name) + [path.read_bytes() for path in sorted(kept.iterdir())]
    seen: Lines = set()
    broken: dict[bytes, str] = {}
    places: set[str] = set()
    tried, end_s = 0, time.process_time() + seconds
    for data in list(pool):
        seen |= lines_of(target, data)[0]
    while time.process_time() < end_s:
        data = mutated(draw, draw.choice(pool), draw.choice(pool))
        lines, story = lines_of(target, data)
        tried += 1
        place = story.rpartition("File ")[2].partition("\n")[0]
        if story and place not in places:
            places.add(place)
            broken[data] = story
        if lines - seen:
            seen |= lines
            pool.append(data)
            (kept / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
            if len(pool) > POOL:
                pool.pop(draw.randrange(len(pool)))
    row = {
        "parser": name,
        "cpu_s": round(seconds, 1),
        "inputs": tried,
        "lines": len(seen),
        "broken": len(broken),
        "commit": commit(),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with RUNS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(
        f"{name:14} {tried:8} inputs in {seconds:.0f} CPU-seconds, {len(seen)} lines "
        f"reached, {len(broken)} broke it",
        flush=True,
    )
    return broken


def commit() -> str:
    """Return the commit that is tested, short."""
    words = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, stdout=subprocess.PIPE, text=True).stdout.strip()


def lines_of(target: Callable[[bytes], object], data: bytes) -> tuple[Lines, str]:
    """Run a target; return the lines of this package that ran, and how it broke."""
    lines: Lines = set()

    def local(frame, event, arg):
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def enter(frame, event, arg):
        return local if frame.f_code.co_filename.startswith(PACKAGE) else None

    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_S)
    sys.settrace(enter)
    try:
        target(data)
    except PdError:
        return lines, ""
    except Exception:
        return lines, traceback.format_exc(limit=-6)
    finally:
        sys.settrace(None)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return lines, ""


WORDS = (
    *(b"null", b"true", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'""', b"\0", b"\n\n"),
    *(b"data: ", b"\r\n", b"9" * 40, b"..", b"&a *a", b"!!python/object", b"\xff"),
    *(b"\n---\n", b": ", b"- ", b'"', b"{", b"}", b"[", b"]", b",", b"\\u0000"),
)


def mutated(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """Return `data` changed in a few places, now and then by a piece of `other`."""
    found = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(found) + 1)
        size = draw.choice([1, 2, 4, 16, 64])
        what = draw.randrange(7)
        if what == 0:
            del found[at : at + size]
        elif what == 1:
            found[at:at] = draw.choice(WORDS)
        elif what == 2:
            found[at : at + size] = draw.choice(WORDS)
        elif what == 3:
            found[at : at + 1] = bytes([draw.randrange(256)])
        elif what == 4:
            found[at:at] = found[at : at + size]
        elif what == 5 and other:
            start = draw.randrange(len(other))
            found[at : at + size] = other[start : start + 4 * size]
        else:
            del found[at + size * 8 :]
    return bytes(found[:MOST_BYTES])


if __name__ == "__main__":
    raise SystemExit(main())
