"""From a workload file to the points of its sweep and their prompts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_pd.errors import SpecError
from pytest_pd.load.mooncake import read_trace, replay_prompts
from pytest_pd.load.point import Arrivals, LoadPoint
from pytest_pd.load.prompts import Lengths, Prompt, PromptSource
from pytest_pd.load.target import Target
from pytest_pd.load.tokenizer import TokenIds
from pytest_pd.spec.file import build, parse_document, read_document
from pytest_pd.spec.locate import HERE, Roots, find_one
from pytest_pd.spec.workload import WorkloadSpec

LEVELS = ("quick", "standard", "full")
MOST_PROMPTS = 100_000
SUPPLY_BYTES = 256 << 20
TOKEN_BYTES = 8
"""About, of a prompt in memory: a word and a space, or a reference to an id."""
PATHS = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """One point of a workload's sweep.

    Attributes:
        label: Stable name, part of the benchmark entry's id: ``c16``, ``r2.5``.
        level: From which on it is run.
        load: What is offered.
    """

    label: str
    level: str
    load: LoadPoint


def read_workload(word: str | Path, roots: Roots = HERE) -> WorkloadSpec:
    """Return the workload of a name or a path.

    Raises:
        SpecError: nothing is called so, or something in the file is wrong.
    """
    found = find_one("workloads", [str(word)], roots)
    return build(read_document(found.path), WorkloadSpec)


def parse_workload(text: str) -> WorkloadSpec:
    """Return the workload that `text` spells, for tests and inline use."""
    return build(parse_document(text, Path("workload.yaml")), WorkloadSpec)


def sweep(spec: WorkloadSpec, level: str = "full") -> Iterator[SweepPoint]:
    """Yield the points of `spec` that run at `level`: closed loop, then open loop.

    Raises:
        SpecError: the level is not known.
    """
    if level not in LEVELS:
        raise SpecError.unknown("level", level, LEVELS)
    for point in _all_points(spec):
        if LEVELS.index(point.level) <= LEVELS.index(level):
            yield point
            for number in range(2, spec.repeats + 1):
                yield replace(point, label=f"{point.label}-{number}")


def _common(spec: WorkloadSpec) -> LoadPoint:
    return LoadPoint(
        duration_s=spec.duration_s,
        ramp_s=spec.ramp_s,
        seed=spec.seed,
        timeout_s=spec.timeout_s,
        max_lateness_share=spec.max_lateness_share,
    )


def at_rate(spec: WorkloadSpec, rate_per_s: float) -> LoadPoint:
    """Return the open loop of `spec` at a rate, of its own or another."""
    return replace(
        _common(spec),
        concurrency=None,
        arrivals=Arrivals(spec.arrivals),
        rate_per_s=rate_per_s,
        burstiness=spec.burstiness,
        requests=spec.requests,
        warmup=spec.warmup_per_concurrency,
    )


def _all_points(spec: WorkloadSpec) -> Iterator[SweepPoint]:
    common = _common(spec)
    if spec.kind == "trace":
        load = replace(common, concurrency=None, arrivals=Arrivals.TRACE)
        yield SweepPoint("trace", "quick", load)
        return
    for c in spec.concurrency:
        requests = None
        if spec.duration_s is None:
            requests = spec.requests or c.value * spec.prompts_per_concurrency
        warmup = c.value * spec.warmup_per_concurrency
        load = replace(common, concurrency=c.value, requests=requests, warmup=warmup)
        yield SweepPoint(f"c{c.value}", c.level, load)
    for rate in spec.rate_per_s:
        yield SweepPoint(f"r{rate.value:g}", rate.level, at_rate(spec, rate.value))


def target_for(
    spec: WorkloadSpec,
    url: str,
    model: str,
    headers: dict[str, str] | None = None,
    *,
    ca_file: Path | None = None,
) -> Target:
    """Return the target that the workload's requests go to."""
    return Target(
        url=url,
        model=model,
        endpoint=PATHS[spec.endpoint],
        headers=headers or {},
        ca_file=ca_file,
        body=spec.body,
        ignore_eos=spec.ignore_eos,
    )


def prompts_for(
    spec: WorkloadSpec, point: SweepPoint, source: PromptSource
) -> list[Prompt]:
    """Return warm-up and measured prompts of one point, never made before.

    A point limited by time gets as many as it could use at 1 ms per request and
    stream, at most 100,000 and 256 MiB of prompt tokens.
    """
    if spec.kind == "trace":
        assert spec.dataset is not None
        data = spec.dataset
        entries = read_trace(data.path, sha256=data.sha256, limit=data.limit)
        return replay_prompts(
            entries, source, block_tokens=data.block_tokens, speed=data.speed
        )
    if isinstance(source.tokenizer, TokenIds) and (
        spec.endpoint == "chat" or spec.turns > 1
    ):
        raise SpecError(
            f"Workload {spec.name!r} needs prompts that are text, and nobody here "
            "counts their tokens.",
            hint="name the directory with the model's tokenizer",
        )
    supply = point.load.requests or _supply(point.load, spec.prompt_tokens)
    count = point.load.warmup + supply
    prompts = source.take(count, lengths_of(spec))
    if spec.turns > 1:
        return conversations(prompts, spec.turns, spec.think_s, point.load.warmup)
    return prompts


def lengths_of(spec: WorkloadSpec) -> Lengths:
    """Return how long the prompts and answers of a workload without a trace are."""
    return Lengths(
        input_tokens=spec.prompt_tokens,
        output_tokens=spec.output_tokens,
        ratio=spec.length_ratio,
        shared_tokens=spec.isl_shared,
        groups=spec.shared_prefixes,
        seed=spec.seed,
    )


def _supply(load: LoadPoint, prompt_tokens: int) -> int:
    assert load.duration_s is not None
    streams = load.concurrency or 1
    wanted = int(streams * load.duration_s * 1000)
    if load.rate_per_s:
        wanted = int(load.rate_per_s * load.duration_s * 1.5) + 16
    room = min(MOST_PROMPTS, SUPPLY_BYTES // (TOKEN_BYTES * prompt_tokens))
    return min(wanted, max(room, load.min_waves * streams))


def conversations(
    prompts: list[Prompt], turns: int, think_s: float, warmup: int = 0
) -> list[Prompt]:
    """Return `prompts` strung into conversations of `turns` each.

    Warm-up prompts stay single. How long a later turn is is known only when the
    answers before it are there, so its `input_tokens` is 0.
    """
    chained = prompts[:warmup]
    for k, prompt in enumerate(prompts[warmup:]):
        index, turn = warmup + k, k % turns
        chained.append(
            replace(
                prompt,
                session=k // turns,
                follows=index - 1 if turn else None,
                think_s=think_s if turn else 0.0,
                text=f" {prompt.text}" if turn else prompt.text,
                input_tokens=0 if turn else prompt.input_tokens,
            )
        )
    return chained
