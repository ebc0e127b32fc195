"""Finished exchanges: kept until the loop has time, then taken into the record."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pytest_pd.load.connection import Exchange
from pytest_pd.load.dispatch import Dispatcher
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.record import Outcome

Settle = Callable[[Exchange, Outcome], tuple[Outcome, str]]
"""Takes a finished exchange into the record; returns how it ended, and its text."""


@dataclass(slots=True)
class Counters:
    """What the loop saw of itself."""

    connections: int = 0
    retries: int = 0
    most_in_flight: int = 0
    in_flight: int = 0
    done: int = 0
    failed: int = 0

    def begin(self) -> None:
        """Count a request that starts."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)


class Backlog:
    """What has ended and is not yet read, and what was said in conversations.

    Args:
        prompts: Everything that may be sent.
        settle: Called once per request.
        counters: `done` and `failed` are counted here.
    """

    def __init__(
        self, prompts: Sequence[Prompt], settle: Settle, counters: Counters
    ) -> None:
        self._prompts = prompts
        self._settle = settle
        self._counters = counters
        self._waiting: deque[tuple[Exchange, Outcome]] = deque()
        self._said: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def history(self, prompt: Prompt) -> str:
        """Return all that was said before `prompt` in its conversation."""
        return "" if prompt.follows is None else self._said.get(prompt.follows, "")

    def add(self, exchange: Exchange, outcome: Outcome, dispatcher: Dispatcher) -> None:
        """Take a finished exchange, and tell `dispatcher` how it ended."""
        self._waiting.append((exchange, outcome))
        if dispatcher.has_followers(exchange.index):
            while self._waiting:  # the next turn needs the answer
                outcome = self.settle_one(dispatcher)
        dispatcher.finished(
            exchange.index, exchange.end_ns, is_ok=outcome is Outcome.OK
        )

    def settle_one(self, dispatcher: Dispatcher) -> Outcome:
        """Take the oldest exchange into the record; return how it ended."""
        exchange, outcome = self._waiting.popleft()
        outcome, text = self._settle(exchange, outcome)
        self._counters.done += 1
        self._counters.failed += outcome is not Outcome.OK
        prompt = self._prompts[exchange.index]
        before = ""
        if prompt.follows is not None:
            before = self._said.pop(prompt.follows, "")
        if dispatcher.has_followers(exchange.index):
            self._said[exchange.index] = before + prompt.text + text
        return outcome
