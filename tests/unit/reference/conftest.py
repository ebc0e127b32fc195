"""Engines in this process, without HTTP, and the tiny model they share."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pytest_pd.reference.connector import KvTransferConfig
from pytest_pd.reference.engine import Engine, EngineOptions
from pytest_pd.reference.faults import Fault, Faults
from pytest_pd.reference.metrics import EngineMetrics, read_families
from pytest_pd.reference.model import Model, read_config
from pytest_pd.reference.request import Answer, Event, Request, Sampling
from pytest_pd.reference.shape import ModelShape
from pytest_pd.reference.tokenizer import Tokenizer
from tests.reference_process import TINY, WAIT_S, ServerProcess, running_server


@dataclass
class Outcome:
    """Everything the engine told about one request."""

    request: Request
    events: list[Event] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events)

    @property
    def last(self) -> Event:
        return self.events[-1]


class Bench:
    """One engine under test, asked directly."""

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        options: EngineOptions,
        faults: Sequence[Fault],
    ) -> None:
        self.dead = threading.Event()
        self.mail: queue.SimpleQueue[tuple[Request, Event]] = queue.SimpleQueue()
        families = read_families(options.max_model_len)
        self.metrics = EngineMetrics(families, engine=options.rank, model_name="tiny")
        self.tokenizer = tokenizer
        self.faults = Faults(faults)
        self.engine = Engine(
            model,
            tokenizer,
            options,
            faults=self.faults,
            metrics=self.metrics,
            deliver=self._take,
            died=self.dead.set,
        )
        self._names = itertools.count()
        self.engine.start()

    def _take(self, events: Sequence[tuple[Request, Event]]) -> None:
        for entry in events:
            self.mail.put(entry)

    def submit(
        self,
        prompt: str | Sequence[int],
        kv: Mapping[str, Any] | None = None,
        stop: Sequence[str] = (),
        **sampling: Any,
    ) -> Request:
        tokens = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        settings = {"temperature": 0.0, "stop_ids": frozenset({self.tokenizer.eos})}
        request = Request(
            name=f"r{next(self._names)}",
            prompt=tuple(tokens),
            sampling=Sampling(**{**settings, **sampling}),
            answer=Answer(stop),
            kv_transfer=kv,
        )
        self.engine.submit(request)
        return request

    def wait(self, *requests: Request) -> list[Outcome]:
        """Return what became of `requests`, in their order."""
        found = {id(request): Outcome(request) for request in requests}
        while any(not o.events or o.last.finish is None for o in found.values()):
            request, event = self.mail.get(timeout=WAIT_S)
            found[id(request)].events.append(event)
        return list(found.values())

    def ask(self, prompt: str | Sequence[int], **settings: Any) -> Outcome:
        return self.wait(self.submit(prompt, **settings))[0]

    def value(self, name: str, own: str = "") -> float:
        return self.metrics.value(f"vllm:{name}", own)

    def settled(self) -> None:
        """Wait until all that was sent to the engine before has been done."""
        done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.engine.post(lambda: done.put(None))
        done.get(timeout=WAIT_S)


MakeBench = Callable[..., Bench]


@pytest.fixture(scope="session")
def tiny() -> Path:
    return TINY


@pytest.fixture(scope="session")
def model(tiny: Path) -> Model:
    return Model.load(tiny)


@pytest.fixture(scope="session")
def tokenizer(tiny: Path) -> Tokenizer:
    return Tokenizer.load(tiny)


@pytest.fixture
def make_bench(model: Model, tokenizer: Tokenizer, tiny: Path) -> Iterator[MakeBench]:
    """Return a maker of running engines, which stop after the test."""
    with ExitStack() as stack:

        def make(
            kv: Mapping[str, Any] | None = None,
            faults: Sequence[Mapping[str, Any]] = (),
            env: Mapping[str, str] | None = None,
            **changes: Any,
        ) -> Bench:
            dtype = changes.pop("dtype", "float16")
            shape = ModelShape.from_config(read_config(tiny), dtype=dtype)
            settings: dict[str, Any] = {
                "rank": 0,
                "shape": shape,
                "dtype": dtype,
                "blocks": 256,
                "block_size": 16,
                "max_model_len": 2048,
                "max_seqs": 16,
                "max_batched_tokens": 512,
                "caching": True,
                "kv_transfer": KvTransferConfig.parse(kv) if kv else None,
                "env": {"VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1", **(env or {})},
            }
            options = EngineOptions(**{**settings, **changes})
            bench = Bench(model, tokenizer, options, [Fault.parse(f) for f in faults])
            stack.callback(bench.engine.stop)
            return bench

        yield make


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with the flags of the recorded vLLM."""
    words = "--served-model-name tiny --max-model-len 2048 --block-size 32"
    words += " --dtype float32 --enable-prompt-tokens-details"
    log = tmp_path_factory.mktemp("server") / "server.log"
    with running_server(log, *words.split()) as process:
        yield process


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Return a starter of servers, which are stopped after the test."""
    with ExitStack() as stack:
        numbers = itertools.count()

        def start(*words: str, env: Mapping[str, str] | None = None) -> ServerProcess:
            log = tmp_path / f"server-{next(numbers)}.log"
            return stack.enter_context(running_server(log, *words, env=env))

        yield start
