"""Runs lm-eval's own command line, once per call of a job. A program of its own.

Started with the interpreter that has lm-eval; imports nothing of pytest-pd. All calls
share the process, for lm-eval takes seconds to import. Three things differ from the
bare command line, none of which changes a question or a score:

- Requests are sent in one shuffled order, the same on every side; lm-eval sends the
  longest first, and drift over time could not be told from length.
- Each exchange is written down with its place in that order, times and logprobs.
- Progress goes to standard output, one JSON object a line.

    python driver.py job.json
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import json
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

ANSWER: ContextVar[Any] = ContextVar("answer", default=None)
"""The server's JSON of the exchange that this task is in."""
TELL_EVERY_S = 1.0


class Recorder:
    """Writes the exchanges of one call and says how far it is."""

    def __init__(self, side: str, sink: TextIO) -> None:
        self._side = side
        self._sink = sink
        self._waiting: dict[str, list[tuple[str, int]]] = {}
        self._total = self._done = self._sent = 0
        self._start_s: float | None = None
        self._told_s = 0.0

    def expect(self, requests: list[Any]) -> None:
        """Note which sample each request belongs to."""
        for request in requests:
            sample = (str(request.task_name), int(request.doc_id))
            self._waiting.setdefault(_key(request.args), []).append(sample)
        self._total += len(requests)

    def send(self) -> tuple[int, float]:
        """Return the place in the order and the time of a request that goes out."""
        now = time.perf_counter()
        self._start_s = now if self._start_s is None else self._start_s
        self._sent += 1
        return self._sent - 1, now

    def keep(self, args: tuple[Any, ...], sent: int, begun_s: float) -> None:
        """Write one finished exchange."""
        now = time.perf_counter()
        task, doc_id = self._waiting[_key(args)].pop(0)
        tokens, logprobs = read_logprobs(ANSWER.get())
        row = {
            "task": task,
            "doc_id": doc_id,
            "sent": sent,
            "begun_s": round(begun_s - (self._start_s or begun_s), 6),
            "seconds": round(now - begun_s, 6),
            "tokens": tokens,
            "logprobs": logprobs,
        }
        self._sink.write(json.dumps(row) + "\n")
        self._done += 1
        if now - self._told_s > TELL_EVERY_S or self._done == self._total:
            self._told_s = now
            tell(side=self._side, done=self._done, total=self._total)


def tell(**fact: object) -> None:
    """Say something to the parent."""
    print(json.dumps(fact), file=sys.__stdout__, flush=True)


def _key(args: tuple[Any, ...]) -> str:
    """Return what tells requests apart; generation arguments are dicts."""
    return json.dumps([str(arg) for arg in args])


def read_logprobs(answer: Any) -> tuple[list[str], list[float]]:
    """Return tokens and logprobs of an answer of either API; empty without."""
    try:
        found = answer["choices"][0].get("logprobs") or {}
    except (TypeError, KeyError, IndexError):
        return [], []
    if "content" in found:
        rows = found["content"] or []
        return [row["token"] for row in rows], [row["logprob"] for row in rows]
    pairs = zip(
        found.get("tokens") or [], found.get("token_logprobs") or [], strict=False
    )
    kept = [(str(token), float(p)) for token, p in pairs if p is not None]
    return [token for token, _ in kept], [p for _, p in kept]


class One(int):
    """The number 1, which is not "at most 1": keeps lm-eval on its async path.

    Its other path sends the same requests one by one and tells nothing of them.
    """

    def __le__(self, other: int) -> bool:
        return False if other == 1 else int(self) <= other

    __hash__ = int.__hash__


def shuffled(seed: int) -> Callable[[Any], bytes]:
    """Return a sort key that puts requests in an order drawn from `seed`."""

    def place(request: Any) -> bytes:
        text = f"{seed}:{request[0]!r}"
        return hashlib.sha256(text.encode()).digest()

    return place


def patch(api: Any, recorder: Callable[[], Recorder], job: dict[str, Any]) -> None:
    """Hang the recorder into lm-eval's HTTP model classes.

    Args:
        api: The module ``lm_eval.models.api_models``.
    """
    from lm_eval.models.openai_completions import (  # type: ignore[import-not-found]
        LocalChatCompletion,
        LocalCompletionsAPI,
    )

    template = api.TemplateAPI
    template.__init__ = _never_one_by_one(template.__init__)
    template.amodel_call = _timed(template.amodel_call, recorder)
    template.generate_until = _expected(template.generate_until, recorder)
    template.loglikelihood = _expected(template.loglikelihood, recorder)
    for cls in (LocalCompletionsAPI, LocalChatCompletion):
        _hear(cls, "parse_generations")
        if job["logprobs"]:
            wish = {"logprobs": True if cls is LocalChatCompletion else 1}
            cls._create_payload = _with(cls._create_payload, wish)
    _hear(LocalCompletionsAPI, "parse_logprobs")
    api.Collator = _in_order(api.Collator, shuffled(int(job["seed"])))


def _never_one_by_one(init: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if self._concurrent == 1:
            self._concurrent = One(1)

    return wrapper


class Gate:
    """lm-eval's semaphore, which also notes when it lets a request through."""

    def __init__(self, real: asyncio.Semaphore, recorder: Recorder) -> None:
        self._real = real
        self._recorder = recorder
        self.sent = (0, 0.0)

    async def acquire(self) -> bool:
        got = await self._real.acquire()
        self.sent = self._recorder.send()
        return got

    def release(self) -> None:
        self._real.release()


def _timed(
    call: Callable[..., Awaitable[Any]], recorder: Callable[[], Recorder]
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(call)
    async def wrapper(self: Any, session: Any, sem: Any, *args: Any, **kw: Any) -> Any:
        gate = Gate(sem, recorder())
        answers = await call(self, session, gate, *args, **kw)
        for key in kw["cache_keys"]:
            recorder().keep(key, *gate.sent)
        return answers

    return wrapper


def _expected(
    method: Callable[..., Any], recorder: Callable[[], Recorder]
) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(self: Any, requests: list[Any], *args: Any, **kwargs: Any) -> Any:
        recorder().expect(requests)
        return method(self, requests, *args, **kwargs)

    return wrapper


def _hear(cls: Any, name: str) -> None:
    """Let a parser, static or not, also keep the JSON that it is given."""
    raw = inspect.getattr_static(cls, name)
    is_static = isinstance(raw, staticmethod)
    function = raw.__func__ if is_static else raw

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        ANSWER.set(kwargs.get("outputs"))
        return function(*args, **kwargs)

    setattr(cls, name, staticmethod(wrapper) if is_static else wrapper)


def _with(create: Callable[..., Any], more: dict[str, Any]) -> Callable[..., Any]:
    @functools.wraps(create)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        payload = create(self, *args, **kwargs)
        return {**more, **payload} if kwargs.get("generate") else payload

    return wrapper


def _in_order(collator: Any, place: Callable[[Any], bytes]) -> Any:
    class Shuffled(collator):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "sort_fn": place})

    return Shuffled


def run_call(argv: list[str], out: Path, evaluate: Callable[[], None]) -> None:
    """Run one call of lm-eval; what ends it is kept and does not end the others."""
    sys.argv = ["lm-eval", *argv]
    try:
        evaluate()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {error}"
        (out / "error.txt").write_text(text, encoding="utf-8")


def main(path: str) -> None:
    """Carry out a job: every call of it, whatever becomes of the others."""
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    tell(stage="importing lm-eval")
    from lm_eval.__main__ import cli_evaluate  # type: ignore[import-not-found]
    from lm_eval.models import api_models  # type: ignore[import-not-found]

    current: list[Recorder] = []
    patch(api_models, lambda: current[-1], job)
    for call in job["calls"]:
        out = Path(call["out"])
        out.mkdir(parents=True, exist_ok=True)
        tell(stage=f"{call['side']}: {call['tasks']}")
        with (out / "requests.jsonl").open("w", encoding="utf-8") as sink:
            current.append(Recorder(call["side"], sink))
            run_call(call["argv"], out, cli_evaluate)


if __name__ == "__main__":
    main(sys.argv[1])
