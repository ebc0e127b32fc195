"""Coverage-guided fuzzing of every parser, for as long as you like.

    make fuzz                                   # 20 CPU-minutes for each parser
    python tests/fuzz/long.py --seconds 60 --only topology,metrics

Mutations that reach new lines of this package are kept and mutated further. What
breaks a parser is written to ``tests/fuzz/corpus/<parser>/``, where the short tests
find it from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pytest_pd.errors import PdError  # noqa: E402
from tests.fuzz.targets import TARGETS, seeds  # noqa: E402

CORPUS = Path(__file__).parent / "corpus"
PACKAGE = str(ROOT / "pytest_pd")
MOST_BYTES = 20_000
POOL = 400
MOST_S = 10.0
"""No parser may think about one input for longer, CPU-seconds."""
Lines = set[tuple[str, int]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200.0, help="CPU, each")
    parser.add_argument("--only", default="", help="comma list of parsers")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(TARGETS)
    broken = 0
    for name in names:
        child = multiprocessing.get_context("fork").Process(
            target=one, args=(name, args.seconds, args.seed)
        )
        child.start()
        child.join()
        broken += child.exitcode != 0
    return int(bool(broken))


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
    target, pool = TARGETS[name], seeds(name)
    seen: Lines = set()
    broken: dict[bytes, str] = {}
    places: set[str] = set()
    runs, end_s = 0, time.process_time() + seconds
    for data in list(pool):
        seen |= lines_of(target, data)[0]
    while time.process_time() < end_s:
        data = mutated(draw, draw.choice(pool), draw.choice(pool))
        lines, story = lines_of(target, data)
        runs += 1
        place = story.rpartition("File ")[2].partition("\n")[0]
        if story and place not in places:
            places.add(place)
            broken[data] = story
        if lines - seen:
            seen |= lines
            pool.append(data)
            if len(pool) > POOL:
                pool.pop(draw.randrange(len(pool)))
    print(
        f"{name:14} {runs:8} inputs in {seconds:.0f} CPU-seconds, {len(seen)} lines "
        f"reached, {len(broken)} broke it",
        flush=True,
    )
    return broken


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
