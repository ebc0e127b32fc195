"""What is asked of a topology: lengths, arrivals, and the points of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pytest_pd.spec.base import MOST_SECONDS, Count, Model, Name, Positive, Seconds
from pytest_pd.spec.slo import SloSpec

Level = Literal["quick", "standard", "full"]
Share = Annotated[float, Field(gt=0, le=1)]
MOST_TOKENS = 2**24
MOST_REQUESTS = 10**8
MOST_STREAMS = 10**6
MOST_SHARDS = 1024
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
Requests = Annotated[int, Field(ge=1, le=MOST_REQUESTS)]
"""All prompts of a point are drawn before it begins."""


class ConcurrencyPoint(Model):
    """One closed-loop point of a sweep, and the level from which on it runs."""

    value: Annotated[int, Field(ge=1, le=MOST_STREAMS)]
    level: Level = "quick"


class RatePoint(Model):
    """One open-loop point of a sweep, and the level from which on it runs."""

    value: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    level: Level = "quick"


def _points(value: Any) -> Any:
    items = value if isinstance(value, list | tuple) else [value]
    return [{"value": item} if not isinstance(item, dict) else item for item in items]


class DatasetSpec(Model):
    """A recorded trace.

    Attributes:
        kind: ``mooncake``: JSON lines of timestamp (ms), input_length,
            output_length and hash_ids.
        path: Relative to the working directory.
        sha256: Of the file; another file is an error.
        limit: Use this many entries; all when None.
        speed: The trace is replayed this many times as fast.
        block_tokens: Tokens that one hash id stands for.
    """

    kind: Literal["mooncake"] = "mooncake"
    path: Path
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    limit: Positive | None = None
    speed: Annotated[float, Field(gt=0)] = 1.0
    block_tokens: Tokens = 512


class WorkloadSpec(Model):
    """A workload file.

    Attributes:
        kind: ``synthetic`` prompts, recorded ``trace``, or ``multi_turn``
            conversations.
        endpoint: Completions or chat completions.
        input_tokens: Tokens of a prompt (ISL), special tokens included.
        isl_shared, isl_unique: Instead of `input_tokens`: the part that prompts
            of one group share, and the rest.
        shared_prefixes: Number of such groups.
        output_tokens: Tokens of an answer (OSL).
        length_ratio: Lengths are uniform between this share and the whole.
        turns, think_s: Of a conversation.
        concurrency: Closed-loop points; or the cap of the open loop's.
        rate_per_s: Open-loop points.
        arrivals: Process of the open loop.
        burstiness: Shape of gamma arrivals; 1 is Poisson.
        prompts_per_concurrency, warmup_per_concurrency: Requests of a point are
            these times its concurrency; an open-loop point takes `requests`.
        requests: Requests of every point, instead.
        duration_s: No request starts later in a point. Not with `requests`.
        shards: Load processes. On a cluster they are spread over the nodes of the
            topology, beginning with the router's.
        repeats: Each point is run so often.
        error_share: The instrument's error p99 may be this share of the median.
        body: Fields added to every request.
    """

    name: Name
    description: str = ""
    kind: Literal["synthetic", "trace", "multi_turn"] = "synthetic"
    endpoint: Literal["completions", "chat"] = "completions"
    input_tokens: Tokens | None = None
    isl_shared: Annotated[int, Field(ge=0, le=MOST_TOKENS)] = 0
    isl_unique: Tokens | None = None
    shared_prefixes: Positive = 1
    output_tokens: Tokens = 16
    length_ratio: Share = 1.0
    turns: Positive = 1
    think_s: Annotated[float, Field(ge=0, le=MOST_SECONDS)] = 0.0
    dataset: DatasetSpec | None = None
    concurrency: Annotated[tuple[ConcurrencyPoint, ...], BeforeValidator(_points)] = ()
    rate_per_s: Annotated[tuple[RatePoint, ...], BeforeValidator(_points)] = ()
    arrivals: Literal["constant", "poisson", "gamma"] = "poisson"
    burstiness: Annotated[float, Field(gt=0)] = 1.0
    ramp_s: Annotated[float, Field(ge=0, le=MOST_SECONDS)] = 0.0
    prompts_per_concurrency: Positive = 10
    warmup_per_concurrency: Count = 2
    requests: Requests | None = None
    duration_s: Seconds | None = None
    timeout_s: Seconds = 600.0
    shards: Annotated[int, Field(ge=1, le=MOST_SHARDS)] = 1
    repeats: Positive = 1
    seed: Count = 0
    max_lateness_share: Share = 0.1
    error_share: Share = 0.1
    ignore_eos: bool = True
    slo: SloSpec | None = None
    body: dict[str, Any] = Field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        """ISL: shared and unique part together."""
        return self.input_tokens or self.isl_shared + (self.isl_unique or 0)

    @model_validator(mode="after")
    def _length_is_said_once(self) -> Self:
        if self.kind == "trace":
            if self.dataset is None:
                raise ValueError("kind: trace needs a dataset")
            return self
        if self.dataset is not None:
            raise ValueError(f"kind: {self.kind} takes no dataset")
        if (self.input_tokens is None) == (self.isl_unique is None):
            raise ValueError("give either input_tokens, or isl_shared and isl_unique")
        return self

    @model_validator(mode="after")
    def _has_points(self) -> Self:
        if self.kind != "trace" and not (self.concurrency or self.rate_per_s):
            raise ValueError("give concurrency, rate_per_s, or both")
        if self.requests and self.duration_s:
            raise ValueError("give requests or duration_s, not both")
        if self.rate_per_s and not (self.requests or self.duration_s):
            raise ValueError(
                "rate_per_s needs requests or duration_s: a rate has no end"
            )
        return self

    @model_validator(mode="after")
    def _conversations_have_turns(self) -> Self:
        if (self.kind == "multi_turn") != (self.turns > 1):
            raise ValueError("kind: multi_turn and turns above 1 go together")
        return self
