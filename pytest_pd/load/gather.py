"""When the loop may let events pile up for a moment before it reads them.

The kernel has stamped an event before we wake, so waking for each one buys nothing and
costs the host a context switch, which an engine on the same cores pays for. What must
not happen is that two events of one stream meet in one read, for then the first one's
stamp is lost. So the pause stays far below the shortest gap seen within any stream.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

LONGEST_NS = 2_000_000
"""More would show in the start of the next request of a closed loop."""
SHORTEST_NS = 100_000
"""Less is not worth a call: a sleep is some 60 us late by itself."""
PART_OF_GAP = 8
WORTHWHILE = 1.5
"""Events that a pause must be expected to collect."""
RECOVERY = 4.0
"""Growth of the remembered shortest gap from look to look, 5 times a second."""
_WORDS_PER_READ = 3


def shortest_gap_ns(reads: Iterable[array[int]]) -> int | None:
    """Return the least time between the last two reads of any stream.

    Args:
        reads: `Reads.words` of each stream. A missing kernel stamp is 0, which makes
            the gap 0, and so no pause.
    """
    gaps = (
        words[-_WORDS_PER_READ] - words[-2 * _WORDS_PER_READ]
        for words in reads
        if len(words) >= 2 * _WORDS_PER_READ
    )
    return min(gaps, default=None)


class Gather:
    """Decides how long to pause, from what was seen of the streams."""

    def __init__(self) -> None:
        self._floor_ns: float | None = None
        self.pause_ns = 0

    def look(self, gap_ns: int | None, reads: int, elapsed_ns: int) -> None:
        """Set `pause_ns` anew.

        Args:
            gap_ns: From `shortest_gap_ns`; None when no stream has two reads.
            reads: How many there were in the last `elapsed_ns`.
        """
        if gap_ns is None:
            self._floor_ns, self.pause_ns = None, 0
            return
        floor_ns = float(gap_ns)
        if self._floor_ns is not None:
            floor_ns = min(floor_ns, self._floor_ns * RECOVERY + 1000)
        self._floor_ns = floor_ns
        pause_ns = int(min(floor_ns / PART_OF_GAP, LONGEST_NS))
        is_worth_it = reads * pause_ns >= WORTHWHILE * elapsed_ns
        self.pause_ns = pause_ns if is_worth_it and pause_ns >= SHORTEST_NS else 0
