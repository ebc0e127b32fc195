"""The HTTP side: an aiohttp application in front of the engines of one process."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from pytest_pd.errors import SpecError
from pytest_pd.reference.call import (
    Mail,
    asked_name,
    collect,
    make_choices,
    stream,
)
from pytest_pd.reference.engine import Engine
from pytest_pd.reference.faults import Fault, Faults
from pytest_pd.reference.fields import ApiError, Body, read_json
from pytest_pd.reference.logs import Clock
from pytest_pd.reference.metrics import (
    EngineMetrics,
    Family,
    process_lines,
    render,
    sample,
)
from pytest_pd.reference.protocol import (
    Call,
    Context,
    read_chat,
    read_completion,
    read_detokenize,
    read_tokenize,
)
from pytest_pd.reference.request import Event, Request
from pytest_pd.reference.responses import Writer
from pytest_pd.reference.tamper import strike_before

VERSION = "0.32.0"
_RANK_HEADER = "X-data-parallel-rank"
_WRITE_S = 0.005
"""Longest time that an engine waits until its tokens are written."""

_BODY_BYTES = 64 << 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Front:
    """What the application needs besides the engines.

    Attributes:
        model_root: What ``/v1/models`` names as root.
        api_key: Key that ``/v1`` asks for; empty for none.
        details: Whether ``usage`` tells cached tokens.
        cache_labels: Labels of ``vllm:cache_config_info`` but ``engine``.
        allow_faults: Whether ``POST /pd/faults`` exists.
        clock: What answers are dated by.
    """

    context: Context
    model_root: str
    api_key: str
    details: bool
    cache_labels: dict[str, str]
    allow_faults: bool
    started_s: float
    clock: Clock


class Server:
    """Routes requests to engines and their events back to the clients."""

    def __init__(self, front: Front, families: Sequence[Family]) -> None:
        self._front = front
        self._families = families
        self._engines: list[Engine] = []
        self._faults: list[Faults] = []
        self._mail: dict[str, Mail] = {}
        self._loop = asyncio.get_running_loop()
        self._page = ""
        self._turns = itertools.count()
        self._answered: dict[tuple[str, str, str], int] = {}

    def add(self, engine: Engine, faults: Faults) -> None:
        """Serve from `engine` too."""
        self._engines.append(engine)
        self._faults.append(faults)

    def deliver(self, events: Sequence[tuple[Request, Event]]) -> None:
        """Take the events of a step; called from an engine's thread."""
        written = threading.Event()
        self._loop.call_soon_threadsafe(self._dispatch, events, written)
        written.wait(_WRITE_S)

    def _dispatch(
        self, events: Sequence[tuple[Request, Event]], written: threading.Event
    ) -> None:
        for request, event in events:
            if (mail := self._mail.get(request.name)) is not None:
                mail.put_nowait((request, event))
        # Handlers wake in the next round of the loop and write in the same one.
        self._loop.call_soon(self._loop.call_soon, written.set)

    def application(self) -> web.Application:
        """Return the application with all routes."""
        app = web.Application(middlewares=[self._guard], client_max_size=_BODY_BYTES)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/ping", self._health),
                web.post("/ping", self._health),
                web.get("/version", self._version),
                web.get("/load", self._load),
                web.get("/metrics", self._metrics),
                web.get("/v1/models", self._models),
                web.post("/v1/completions", self._completions),
                web.post("/v1/chat/completions", self._chat),
                web.post("/tokenize", self._tokenize),
                web.post("/detokenize", self._detokenize),
                web.post("/reset_prefix_cache", self._reset_prefix_cache),
            ]
        )
        if self._front.allow_faults:
            app.router.add_post("/pd/faults", self._set_faults)
        return app

    @web.middleware
    async def _guard(
        self,
        request: web.Request,
        handler: Handler,
    ) -> web.StreamResponse:
        """Check the key, count the answer and give errors vLLM's shape."""
        key = self._front.api_key
        given = request.headers.get("Authorization", "")
        if key and request.path.startswith("/v1") and given != f"Bearer {key}":
            return web.json_response({"error": "Unauthorized"}, status=401)
        try:
            response: web.StreamResponse = await handler(request)
        except ApiError as exc:
            response = web.json_response(exc.body, status=exc.status)
        except web.HTTPException as exc:
            response = web.json_response({"detail": exc.reason}, status=exc.status)
        self._count(request, response.status)
        return response

    def _count(self, request: web.Request, status: int) -> None:
        key = request.path, request.method, f"{status // 100}xx"
        self._answered[key] = self._answered.get(key, 0) + 1

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": VERSION})

    async def _load(self, _: web.Request) -> web.Response:
        return web.json_response({"server_load": sum(e.load for e in self._engines)})

    async def _metrics(self, _: web.Request) -> web.Response:
        struck = bool(self._engines and self._faults[0].fire("metrics"))
        if struck and self._page:
            return self._page_response()
        metrics = [engine.books.metrics for engine in self._engines]
        lines = process_lines(self._front.started_s)
        lines += render(self._families, metrics)
        lines += self._cache_lines(metrics)
        lines += ["# TYPE http_requests_total counter"]
        for (path, method, status), count in sorted(self._answered.items()):
            labels = {"handler": path, "method": method, "status": status}
            lines.append(sample("http_requests_total", labels, count))
        self._page = "\n".join(lines) + "\n"
        return self._page_response()

    def _page_response(self) -> web.Response:
        return web.Response(text=self._page, content_type="text/plain", charset="utf-8")

    def _cache_lines(self, metrics: Sequence[EngineMetrics]) -> list[str]:
        lines = ["# TYPE vllm:cache_config_info gauge"]
        for entry in metrics:
            labels = {**self._front.cache_labels, "engine": entry.labels["engine"]}
            lines.append(sample("vllm:cache_config_info", labels, 1))
        return lines

    async def _models(self, _: web.Request) -> web.Response:
        front = self._front
        struck = bool(self._faults and self._faults[0].fire("models"))
        cards: list[dict[str, object]] = [
            {
                "id": f"not-{name}" if struck else name,
                "object": "model",
                "created": int(front.clock.now_s()),
                "owned_by": "vllm",
                "root": front.model_root,
                "parent": None,
                "max_model_len": front.context.max_model_len,
                "permission": [],
            }
            for name in front.context.names
        ]
        return web.json_response({"object": "list", "data": cards})

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = read_json(await request.read())
        context = self._front.context
        tokens = read_tokenize(body, context)
        words = [context.tokenizer.words[token] for token in tokens]
        return web.json_response(
            {
                "count": len(tokens),
                "max_model_len": context.max_model_len,
                "tokens": tokens,
                "token_strs": words if body.get("return_token_strs") else None,
            }
        )

    async def _detokenize(self, request: web.Request) -> web.Response:
        body = read_json(await request.read())
        return web.json_response({"prompt": read_detokenize(body, self._front.context)})

    async def _reset_prefix_cache(self, _: web.Request) -> web.Response:
        for engine in self._engines:
            engine.reset_prefix_cache()
        return web.Response()

    async def _set_faults(self, request: web.Request) -> web.Response:
        """Replace all faults by the list in the body."""
        try:
            content = json.loads(await request.read())
            faults = tuple(Fault.parse(entry) for entry in content)
        except (SpecError, ValueError, TypeError) as exc:
            raise ApiError(str(exc)) from exc
        for own in self._faults:
            own.replace(faults)
        return web.json_response({"faults": [fault.kind for fault in faults]})

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        body = read_json(await request.read())
        call = read_completion(body, self._front.context)
        return await self._answer(request, body, call, f"cmpl-{secrets.token_hex(8)}")

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = read_json(await request.read())
        call = read_chat(body, self._front.context)
        name = f"chatcmpl-{secrets.token_hex(8)}"
        return await self._answer(request, body, call, name)

    async def _answer(
        self, http: web.Request, body: Body, call: Call, name: str
    ) -> web.StreamResponse:
        """Run one call, with its requests aborted if the client leaves."""
        engine, faults = self._engine(http)
        await strike_before(faults.fire("http"), self._front.clock)
        name = asked_name(http, body, name)
        tokenizer, details = self._front.context.tokenizer, self._front.details
        writer = Writer(call, tokenizer, name, int(self._front.clock.now_s()), details)
        choices = make_choices(call, name)
        mail: Mail = asyncio.Queue()
        for choice in choices:
            self._mail[choice.request.name] = mail
            engine.submit(choice.request)
        try:
            if call.stream:
                struck = faults.fire("stream")
                return await stream(http, writer, choices, mail, struck)
            await collect(choices, mail)
            return web.json_response(writer.body(choices))
        finally:
            for choice in choices:
                del self._mail[choice.request.name]
                if choice.last is None:
                    engine.abort(choice.request.name)

    def _engine(self, http: web.Request) -> tuple[Engine, Faults]:
        """Return the engine of the rank asked for, else the least loaded one."""
        asked = http.headers.get(_RANK_HEADER)
        count = len(self._engines)
        if asked is None:
            turn = next(self._turns)
            order = [(turn + step) % count for step in range(count)]
            rank = min(order, key=lambda index: self._engines[index].load)
        elif asked.isdigit() and int(asked) < count:
            rank = int(asked)
        else:
            message = f"data_parallel_rank {asked} is out of range [0, {count})."
            raise ApiError(message, param="data_parallel_rank")
        return self._engines[rank], self._faults[rank]
