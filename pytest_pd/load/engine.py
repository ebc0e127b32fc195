"""The engine: one epoll loop, no asyncio, no JSON and no allocation to speak of
between a byte's arrival and its stamp."""

from __future__ import annotations

import select
import ssl
import time
from collections.abc import Callable, Sequence

from pytest_pd.load.backlog import Backlog, Counters, Settle
from pytest_pd.load.clock import NS, AbsoluteTimer, OffsetTracker
from pytest_pd.load.connection import READABLE, WRITABLE, Connection, Exchange
from pytest_pd.load.dispatch import Dispatcher
from pytest_pd.load.gather import Gather, shortest_gap_ns
from pytest_pd.load.http_message import BadHttp, Framing
from pytest_pd.load.pool import ConnectionPool
from pytest_pd.load.prompts import Prompt
from pytest_pd.load.record import Outcome
from pytest_pd.load.stamps import CONTROL_BYTES, READ_BYTES, read_timespec
from pytest_pd.load.target import RequestWriter, Target

TICK_NS = NS // 10
SURVEY_NS = NS // 5
SPIN_NS = 60_000
"""The timer wakes this early, and the loop spins for the rest: a sleeping process
needs tens of microseconds to run again."""
ROUND_TRIP_NS = NS
"""Longer than any round trip to a server that is measured."""
BACKLOG_LIMIT = 512
__all__ = ["TICK_NS", "Counters", "KernelEngine", "Settle"]


class KernelEngine:
    """Sends requests over a pool of connections and stamps what comes back.

    Args:
        target: Where to.
        prompts: Everything that may be sent.
        settle: Called once per request, when the loop has nothing better to do.
        timeout_s: Limit per request.

    Raises:
        InfrastructureLost: the host name does not resolve.
    """

    def __init__(
        self,
        target: Target,
        prompts: Sequence[Prompt],
        settle: Settle,
        *,
        timeout_s: float,
    ) -> None:
        self._prompts = prompts
        self._timeout_ns = int(timeout_s * NS)
        self._writer = RequestWriter(target)
        self._poll = select.epoll()
        self._pool = ConnectionPool(target, self._poll)
        self._timer = AbsoluteTimer()
        self._poll.register(self._timer.fd, READABLE)
        self._dispatcher: Dispatcher | None = None
        self._next_tick_ns = 0
        self._armed_ns = 0
        self._gather = Gather()
        self._reads = 0
        self._woke_ns = 0
        self._next_survey_ns = 0
        self._is_stirred = True  # something happened that may let a request start
        self.offset = OffsetTracker.start()
        self.counters = Counters()
        self._backlog = Backlog(prompts, settle, self.counters)
        self.name = "kernel"
        self.on_tick: Callable[[Counters], None] | None = None

    @property
    def clock_steps(self) -> int:
        return self.offset.steps

    # -- life ---------------------------------------------------------------

    def open_connections(self, count: int, timeout_s: float = 10.0) -> None:
        """Connect beforehand, so that no request pays for it."""
        self._pool.open(count, timeout_s=timeout_s)
        self.counters.connections = self._pool.opened

    def close(self) -> None:
        """Close every descriptor."""
        self._pool.close()
        self._poll.close()
        self._timer.close()

    # -- the loop -----------------------------------------------------------

    def run(self, dispatcher: Dispatcher) -> None:
        """Send what `dispatcher` says until nothing is left and all is settled."""
        self._dispatcher = dispatcher
        self._next_tick_ns = self._next_survey_ns = self._armed_ns = 0
        self._gather = Gather()  # another phase may have another rhythm
        connection_of, read_stream = self._pool.by_fd.get, self._read_stream
        timer_fd, poll = self._timer.fd, self._poll.poll
        monotonic_ns = time.monotonic_ns
        self._is_stirred = True
        while True:
            if self._is_stirred:
                self._is_stirred = False
                if not self._start_due(dispatcher):
                    break
                self._is_stirred |= self._arm(dispatcher)
            is_idle = not self._is_stirred and not self._backlog
            if is_idle and self._gather.pause_ns:
                self._pause(self._gather.pause_ns)
            events = poll(-1 if is_idle else 0)
            self._woke_ns = monotonic_ns()
            self._reads += len(events)
            for fd, mask in events:
                connection = connection_of(fd)
                if connection is None:
                    if fd == timer_fd:
                        self._timer.clear()
                        self._armed_ns = 0
                        self._is_stirred = True
                elif mask == READABLE and connection.is_streaming:
                    read_stream(connection)
                else:
                    self._serve(connection, mask)
            if self._backlog and (not events or len(self._backlog) > BACKLOG_LIMIT):
                self._backlog.settle_one(dispatcher)
        while self._backlog:
            self._backlog.settle_one(dispatcher)
        if self.on_tick:
            self.on_tick(self.counters)

    def _start_due(self, dispatcher: Dispatcher) -> bool:
        """Start what is due; return whether there is anything to wait for."""
        now = time.monotonic_ns()
        if now >= self._next_tick_ns:
            self._tick(now)
        counters = self.counters
        while (start := dispatcher.take(now, counters.in_flight)) is not None:
            self._start(*start)
            now = time.monotonic_ns()
        return counters.in_flight > 0 or not dispatcher.is_over

    def _arm(self, dispatcher: Dispatcher) -> bool:
        """Set the timer; return True if the next request is too near to sleep."""
        due = dispatcher.due_ns(self.counters.in_flight)
        wake = self._next_tick_ns
        if due is not None and due - SPIN_NS < wake:
            if due - SPIN_NS <= time.monotonic_ns():
                return True
            wake = due - SPIN_NS
        if wake != self._armed_ns:
            self._timer.set(wake)
            self._armed_ns = wake
        return False

    def _pause(self, pause_ns: int) -> None:
        """Let events pile up, unless the timer is near."""
        if self._armed_ns - time.monotonic_ns() > 2 * pause_ns:
            time.sleep(pause_ns / NS)

    def _tick(self, now: int) -> None:
        self._next_tick_ns = now + TICK_NS
        self.offset.refresh()
        if now >= self._next_survey_ns:
            self._survey(now)
        if self.on_tick:
            self.on_tick(self.counters)

    def _survey(self, now: int) -> None:
        """Give up what takes too long, and see how close events of a stream come."""
        since_ns = now - self._next_survey_ns + SURVEY_NS
        self._next_survey_ns = now + SURVEY_NS
        late, streams = now - self._timeout_ns, []
        for connection in list(self._pool.by_fd.values()):
            exchange = connection.exchange
            if exchange is None:
                continue
            if exchange.sent_before_ns < late:
                self._fail(connection, exchange, Outcome.TIMEOUT, "no end in time")
            elif connection.is_streaming:
                streams.append(exchange.reads.words)
        self._gather.look(shortest_gap_ns(streams), self._reads, since_ns)
        self._reads = 0

    # -- one request --------------------------------------------------------

    def _start(self, intended_ns: int, index: int) -> None:
        prompt = self._prompts[index]
        request = self._writer.write(index, prompt, self._backlog.history(prompt))
        self.counters.begin()
        self._send(Exchange(index, intended_ns, request))

    def _send(self, exchange: Exchange) -> None:
        connection = self._pool.reusable()
        if connection is None:
            exchange.sent_before_ns = time.monotonic_ns()
            try:
                connection = self._pool.connect()
            except OSError as error:
                exchange.error = f"connect: {error}"
                self._over(exchange, Outcome.CONNECT)
                return
            self.counters.connections = self._pool.opened
            exchange.connections += 1
            connection.exchange = exchange
            return
        self._write(connection, exchange)

    def _advance(self, connection: Connection) -> bool:
        """Go on connecting; return whether the connection can be used."""
        try:
            return self._pool.advance(connection)
        except (OSError, ssl.SSLError) as error:
            exchange = connection.exchange
            if exchange is None:
                self._pool.drop(connection)
            else:
                self._fail(connection, exchange, Outcome.CONNECT, str(error))
            return False

    def _serve(self, connection: Connection, mask: int) -> None:
        exchange = connection.exchange
        if not connection.is_ready:
            if self._advance(connection) and exchange is not None:
                exchange.connect_ns = connection.connect_ns
                self._write(connection, exchange)
            return
        if mask & WRITABLE:
            self._flush(connection)
        if mask & ~WRITABLE:
            self._read(connection, exchange)

    def _write(self, connection: Connection, exchange: Exchange) -> None:
        try:
            connection.send(exchange)
        except OSError as error:
            self._broken(connection, exchange, error)
            return
        self._pool.watch(connection)

    def _flush(self, connection: Connection) -> None:
        try:
            is_gone = connection.flush()
        except OSError as error:
            if connection.exchange is not None:
                self._broken(connection, connection.exchange, error)
            return
        if is_gone and connection.exchange is not None:
            connection.exchange.sent_after_ns = time.monotonic_ns()
        self._pool.watch(connection)

    def _read_stream(self, connection: Connection) -> None:
        """The hot path: all that happens to nearly every event of an answer."""
        try:
            data, control, _, _ = connection.recvmsg(READ_BYTES, CONTROL_BYTES)
        except OSError:
            self._read(connection, connection.exchange)  # which meets it again
            return
        exchange = connection.exchange
        if not data or not control or exchange is None:
            self._take(connection, exchange, data, 0, time.monotonic_ns())
            return
        seconds, nanos = read_timespec(control[0][2])
        kernel_ns = seconds * NS + nanos - self.offset.offset_ns
        raw, note = exchange.raw, exchange.note
        raw += data
        note(kernel_ns)  # as Reads.add does; a call less
        note(self._woke_ns)
        note(len(raw))
        if data.endswith(b"\r\n\r\n") or len(data) < 4:
            self._look_for_end(connection, exchange, kernel_ns)

    def _look_for_end(
        self, connection: Connection, exchange: Exchange, end_ns: int
    ) -> None:
        try:
            is_over = exchange.is_chunked_over()
        except BadHttp as error:
            self._fail(connection, exchange, Outcome.MALFORMED, error.fact)
            return
        if is_over:
            self._complete(connection, exchange, end_ns)

    def _read(self, connection: Connection, exchange: Exchange | None) -> None:
        try:
            data, real_ns = connection.receive()
            now = time.monotonic_ns()
        except BlockingIOError:
            return
        except OSError as error:
            if exchange is None:
                self._pool.drop(connection)
            else:
                self._broken(connection, exchange, error)
            return
        self._take(connection, exchange, data, real_ns, now)

    def _take(
        self,
        connection: Connection,
        exchange: Exchange | None,
        data: bytes,
        real_ns: int,
        now: int,
    ) -> None:
        if not data or exchange is None:
            self._ended(connection, exchange)
            return
        kernel_ns = real_ns - self.offset.offset_ns if real_ns else 0
        try:
            is_over = exchange.take(data, kernel_ns, now)
        except BadHttp as error:
            self._fail(connection, exchange, Outcome.MALFORMED, error.fact)
            return
        if is_over:
            self._complete(connection, exchange, kernel_ns or now)
        else:
            connection.is_streaming = exchange.is_streaming and connection.is_plain

    # -- ends ---------------------------------------------------------------

    def _complete(
        self, connection: Connection, exchange: Exchange, end_ns: int
    ) -> None:
        exchange.end_ns = end_ns
        connection.exchange = None
        connection.is_streaming = False
        assert exchange.head is not None
        if exchange.head.keeps_open:
            self._pool.keep(connection)
        else:
            self._pool.drop(connection)
        self._over(exchange, Outcome.OK)

    def _ended(self, connection: Connection, exchange: Exchange | None) -> None:
        """The peer closed, or spoke without being asked."""
        if exchange is None:
            self._pool.drop(connection)
        elif exchange.head is not None and exchange.head.framing is Framing.CLOSE:
            self._complete(connection, exchange, time.monotonic_ns())
        else:
            self._broken(connection, exchange, None)

    def _broken(
        self, connection: Connection, exchange: Exchange, error: OSError | None
    ) -> None:
        """Send once more if an old connection died unheard, else fail.

        One that was closed while it was idle tells so within a round trip; one that
        breaks later had the request.
        """
        is_old = connection.requests > 1 and not exchange.connections
        unheard_ns = time.monotonic_ns() - exchange.sent_before_ns
        if is_old and not exchange.raw and unheard_ns < ROUND_TRIP_NS:
            self.counters.retries += 1
            self._pool.drop(connection)
            self._pool.distrust()
            self._send(exchange)
            return
        reason = str(error) if error else "connection closed before the answer's end"
        self._fail(connection, exchange, Outcome.DISCONNECT, reason)

    def _fail(
        self, connection: Connection, exchange: Exchange, outcome: Outcome, why: str
    ) -> None:
        exchange.error = why
        self._pool.drop(connection)
        self._over(exchange, outcome)

    def _over(self, exchange: Exchange, outcome: Outcome) -> None:
        exchange.end_ns = exchange.end_ns or time.monotonic_ns()
        exchange.request = b""
        self._is_stirred = True
        self.counters.in_flight -= 1
        assert self._dispatcher is not None
        self._backlog.add(exchange, outcome, self._dispatcher)
