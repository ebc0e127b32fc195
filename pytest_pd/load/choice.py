"""Which engine: the epoll loop with kernel stamps, or httpx where that cannot run."""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from typing import Protocol

from pytest_pd.errors import SpecError
from pytest_pd.load.dispatch import Dispatcher
from pytest_pd.load.engine import Counters, KernelEngine, Settle
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.target import Target

ENGINES = ("auto", "kernel", "httpx")


class Engine(Protocol):
    """Sends what a dispatcher says and hands finished exchanges over."""

    on_tick: Callable[[Counters], None] | None

    @property
    def name(self) -> str: ...

    @property
    def counters(self) -> Counters: ...

    @property
    def clock_steps(self) -> int: ...

    def open_connections(self, count: int) -> None: ...

    def run(self, dispatcher: Dispatcher) -> None: ...

    def close(self) -> None: ...


def make_engine(
    name: str,
    target: Target,
    prompts: Sequence[Prompt],
    settle: Settle,
    timeout_s: float,
) -> Engine:
    """Return the engine of that name; ``auto`` is the best that this host has.

    Raises:
        SpecError: no engine is called so.
    """
    if name not in ENGINES:
        raise SpecError.unknown("load engine", name, ENGINES)
    if name == "kernel" or (name == "auto" and hasattr(select, "epoll")):
        return KernelEngine(target, prompts, settle, timeout_s=timeout_s)
    from pytest_pd.load.httpx_engine import HttpxEngine

    return HttpxEngine(target, prompts, settle, timeout_s=timeout_s)
