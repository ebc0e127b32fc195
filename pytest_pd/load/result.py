"""What a load run leaves: records, views of single requests, and the instrument."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from pytest_pd.errors import MeasurementError
from pytest_pd.files import whole_file
from pytest_pd.load.point import LoadPoint
from pytest_pd.load.record import Array, Event, Outcome, Phase, TokenSource

FORMAT = 1
ENDS_ONLY = "user, first and last event only"
"""Stamp source of a foreign tool that keeps no time per event: there are no gaps."""


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """One request. Times are monotonic ns of the client's host.

    Attributes:
        index: Of its prompt.
        phase, outcome: See `Phase` and `Outcome`.
        status: HTTP status, 0 when no head arrived.
        session, shard: Conversation, and the process that sent it.
        input_tokens, output_tokens: As usage says, else as `token_source`.
        cached_tokens: Prompt tokens from a cache by usage, -1 when not told.
        intended_ns: When it should have been sent.
        sent_before_ns, sent_after_ns: Around the send; latency is from before.
        connect_ns: Duration of a connect for this request, 0 for none.
        head_ns, end_ns: First byte of the head; end of the answer.
        stamp_ns: int64 (n,): arrival of each event that brought output.
        lag_ns: uint32 (n,): how much later this process read it.
        flags: uint8 (n,): `Event` bits.
        tokens: uint16 (n,): tokens in each event, 0 where it did not say.
        text: The answer.
        error: What went wrong; empty when nothing did.
    """

    index: int
    phase: Phase
    outcome: Outcome
    status: int
    session: int
    shard: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    token_source: TokenSource
    connections: int
    intended_ns: int
    sent_before_ns: int
    sent_after_ns: int
    connect_ns: int
    head_ns: int
    end_ns: int
    stamp_ns: Array = field(repr=False)
    lag_ns: Array = field(repr=False)
    flags: Array = field(repr=False)
    tokens: Array = field(repr=False)
    text: str
    error: str

    @property
    def is_ok(self) -> bool:
        return self.outcome is Outcome.OK


@dataclass(frozen=True, slots=True)
class Instrument:
    """How far the figures of a run can be trusted, as seen by the client itself.

    Attributes:
        engine: ``kernel`` or ``httpx``.
        stamp_source: ``kernel``, ``user``, or ``mixed``.
        user_stamp_share: Share of events stamped by our own read.
        coalesced_share: Share of output events that shared a read: each arrived
            in (previous stamp, own stamp].
        send_lag_p50_s, send_lag_p99_s: Actual minus intended send.
        send_width_p50_s, send_width_p99_s: Time between the stamps around send.
        read_lag_p50_s, read_lag_p99_s, read_lag_max_s: Arrival to our read;
            a client that stamps in user space has this in its latencies.
        cpu_share: Of the busiest load process.
        cpu_s: Of all of them.
        run_queue_s: Runnable and not running, all processes.
        steal_s: Taken by the hypervisor, whole host.
        load_average, cores: Of the host.
        collections: Garbage collections during the run.
        clock_steps: Jumps of the realtime clock.
        connections_opened: TCP connections, set-up before the run included.
        retries: Requests repeated because an old connection had died.
        most_in_flight: Highest number of requests in flight.
        shards: Load processes.
        peak_rss_bytes: Sum over them.
        scheduling: ``fifo`` where the loop ran at real-time priority.
        clock_uncertainty_s: Between the hosts of the shards; 0 on one host.
        gpus: Clocks, power and slowdowns of the load's hosts' GPUs meanwhile: by
            index, with the host's name in front where there are several.
        warm_up: Waves sent before until two agreed; empty when none were.
        attempts: Times the point was run until it held, or was given up.
        calibration: Error against a known truth; empty when none was measured.
    """

    engine: str
    stamp_source: str
    user_stamp_share: float
    coalesced_share: float
    send_lag_p50_s: float
    send_lag_p99_s: float
    send_width_p50_s: float
    send_width_p99_s: float
    read_lag_p50_s: float
    read_lag_p99_s: float
    read_lag_max_s: float
    cpu_share: float
    cpu_s: float
    run_queue_s: float
    steal_s: float
    load_average: float
    cores: int
    collections: int
    clock_steps: int
    connections_opened: int
    retries: int
    most_in_flight: int
    shards: int
    peak_rss_bytes: int
    scheduling: str = "normal"
    clock_uncertainty_s: float = 0.0
    gpus: Mapping[str, Any] = field(default_factory=dict)
    warm_up: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 1
    calibration: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Everything one load run recorded.

    Attributes:
        point: The load that was offered.
        url, model, endpoint: Where it went.
        tokenizer: What counted the prompts' tokens.
        started_at_s: Unix time of the start.
        requests: `REQUEST` rows, one per prompt.
        columns: `EVENT_COLUMNS`, all events of all requests.
        texts: Answers, one after the other.
        errors: Prompt index to what went wrong, for the first failures.
        instrument: How far to trust the rest.
        reasons: Why the run cannot carry a conclusion; empty when it can.
    """

    point: LoadPoint
    url: str
    model: str
    endpoint: str
    tokenizer: str
    started_at_s: float
    requests: Array = field(repr=False)
    columns: Mapping[str, Array] = field(repr=False)
    texts: bytes = field(repr=False)
    errors: Mapping[int, str] = field(repr=False)
    instrument: Instrument
    reasons: tuple[str, ...] = ()

    @property
    def is_valid(self) -> bool:
        return not self.reasons

    def rows(self, phase: Phase = Phase.MEASURED) -> Array:
        """Return the rows of one phase, a copy."""
        rows: Array = self.requests[self.requests["phase"] == phase]
        return rows

    def counts(self, phase: Phase = Phase.MEASURED) -> dict[str, int]:
        """Return how many requests ended how; kinds that did not occur are left out."""
        codes, numbers = np.unique(self.rows(phase)["outcome"], return_counts=True)
        return {
            Outcome(int(code)).name.lower(): int(number)
            for code, number in zip(codes, numbers, strict=True)
        }

    def content(self, row: Array) -> tuple[Array, Array, Array, Array]:
        """Return stamps, lags, flags and tokens of a row's output events."""
        start = int(row["event_start"])
        part = slice(start, start + int(row["event_count"]))
        flags = self.columns["flags"][part]
        kept = (flags & Event.CONTENT) != 0
        stamps = self.columns["stamp_ns"][part][kept]
        lags = self.columns["lag_ns"][part][kept]
        return stamps, lags, flags[kept], self.columns["tokens"][part][kept]

    def trace(self, index: int) -> RequestTrace:
        """Return the request of prompt `index`."""
        row = self.requests[index]
        stamp_ns, lag_ns, flags, tokens = self.content(row)
        start = int(row["text_start"])
        text = self.texts[start : start + int(row["text_bytes"])]
        plain = {name: int(row[name]) for name in REQUEST_FIELDS}
        return RequestTrace(
            index=index,
            phase=Phase(int(row["phase"])) if row["phase"] else Phase.MEASURED,
            outcome=Outcome(int(row["outcome"])),
            token_source=TokenSource(int(row["token_source"])),
            stamp_ns=stamp_ns,
            lag_ns=lag_ns,
            flags=flags,
            tokens=tokens,
            text=text.decode("utf-8", "replace"),
            error=self.errors.get(index, ""),
            **plain,
        )

    def traces(self, phase: Phase = Phase.MEASURED) -> Iterator[RequestTrace]:
        """Yield the requests of one phase, in the order of their prompts."""
        for index in np.flatnonzero(self.requests["phase"] == phase):
            yield self.trace(int(index))

    def save(self, path: Path) -> Path:
        """Write everything to one .npz file: whole and on disk, or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as sink:
            self.write(sink)
        return path

    def write(self, sink: IO[bytes]) -> None:
        """Write everything to an open file, as .npz."""
        arrays: dict[str, Any] = {
            f"column_{name}": column for name, column in self.columns.items()
        }
        np.savez(
            sink,
            requests=self.requests,
            texts=np.frombuffer(self.texts, "u1"),
            meta=np.frombuffer(json.dumps(self._meta()).encode(), "u1"),
            **arrays,
        )

    def _meta(self) -> dict[str, Any]:
        plain = {
            name: getattr(self, name)
            for name in ("url", "model", "endpoint", "tokenizer", "started_at_s")
        }
        return plain | {
            "format": FORMAT,
            "point": dataclasses.asdict(self.point),
            "errors": {str(k): v for k, v in self.errors.items()},
            "instrument": dataclasses.asdict(self.instrument),
            "reasons": list(self.reasons),
        }

    @classmethod
    def load(cls, source: Path | IO[bytes]) -> LoadResult:
        """Read what `save` or `write` wrote.

        Raises:
            MeasurementError: the file is not of this format.
        """
        name = source if isinstance(source, Path) else None
        try:
            with np.load(source, allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
            meta = json.loads(arrays.pop("meta").tobytes())
        except (OSError, ValueError, KeyError) as error:
            raise MeasurementError(
                f"This is no saved load result: {error}.", where=name
            ) from error
        if meta.pop("format") != FORMAT:
            raise MeasurementError(
                f"The load result is of another format than {FORMAT}.", where=name
            )
        return cls._from_parts(meta, arrays)

    @classmethod
    def _from_parts(
        cls, meta: dict[str, Any], arrays: Mapping[str, Array]
    ) -> LoadResult:
        return cls(
            point=LoadPoint(**meta.pop("point")),
            instrument=Instrument(**meta.pop("instrument")),
            errors={int(k): v for k, v in meta.pop("errors").items()},
            reasons=tuple(meta.pop("reasons")),
            requests=arrays["requests"],
            texts=arrays["texts"].tobytes(),
            columns={
                name.removeprefix("column_"): array
                for name, array in arrays.items()
                if name.startswith("column_")
            },
            **meta,
        )


REQUEST_FIELDS = (
    "status",
    "session",
    "shard",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "connections",
    "intended_ns",
    "sent_before_ns",
    "sent_after_ns",
    "connect_ns",
    "head_ns",
    "end_ns",
)
