"""Two or more URLs in turn, A B A B, on the same prompts: which answers faster?

What drifts on a shared machine (clocks, neighbours, temperature) hits every side of a
round alike, and the scatter from round to round is in the interval.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pytest_pd.load.prompts import PromptSource
from pytest_pd.load.result import LoadResult
from pytest_pd.load.run import run_load
from pytest_pd.load.tokenizer import find_tokenizer
from pytest_pd.load.workload import prompts_for, read_workload, sweep, target_for
from pytest_pd.measure.latency import measurements
from pytest_pd.measure.ratio import compare_runs, has_ratio
from pytest_pd.report.compare import Compared, default_statistic
from pytest_pd.spec.workload import WorkloadSpec
from pytest_pd.terminal.load import first_model

HINT = "is the server up, and is there /v1/models behind this URL?"
Key = tuple[str, str]
Runner = Callable[[str, int], Iterator[tuple[str, LoadResult]]]


@dataclass(slots=True)
class Side:
    """One URL and what was measured there.

    Attributes:
        samples: (point, metric) to the samples of each round; `units` alike.
        invalid: Why rounds of it cannot be used.
    """

    url: str
    samples: dict[Key, list[Sequence[float]]] = field(default_factory=dict)
    units: dict[Key, str] = field(default_factory=dict)
    invalid: list[str] = field(default_factory=list)

    def note(self, point: str, result: LoadResult) -> None:
        """Keep the samples of a result that holds, or the reasons why it does not."""
        counts = result.counts()
        reasons = list(result.reasons)
        if failed := sum(counts.values()) - counts.get("ok", 0):
            reasons.insert(0, f"{failed} requests failed")
        if reasons:
            self.invalid += [f"{point}: {reason}" for reason in reasons]
            return
        for each in measurements(result):
            key = (point, each.metric)
            self.units[key] = each.unit
            self.samples.setdefault(key, []).append(each.samples)


class CutShort(Exception):
    """Turns ended before their last round.

    Args:
        sides: With the samples of the rounds that were done.
        done, rounds: So many of so many.
        cause: What ended them.
    """

    def __init__(
        self, sides: list[Side], done: int, rounds: int, cause: BaseException
    ) -> None:
        self.sides = sides
        self.cause = cause
        what = str(cause) or type(cause).__name__
        super().__init__(f"{done} of {rounds} rounds were measured, then: {what}")


def in_turn(urls: Sequence[str], rounds: int, run: Runner) -> list[Side]:
    """Measure every URL once in each round, in the order given.

    Raises:
        CutShort: something ended a later round than the first; carries those before.
    """
    sides = [Side(url) for url in urls]
    for number in range(rounds):
        found = []
        try:
            for side in sides:
                found += [(side, *each) for each in run(side.url, number)]
        except (Exception, KeyboardInterrupt) as error:
            if not number:
                raise
            raise CutShort(sides, number, rounds, error) from error
        for side, point, result in found:  # a round counts whole: sides stay alike
            side.note(point, result)
    return sides


def verdicts(
    old: Side, new: Side, *, effect: float, confidence: float, jitter: float
) -> list[Compared]:
    """Return every metric that two sides have in common, the new against the old.

    A metric of which a round is 0 has no ratio and is left out: gaps between tokens
    that shared a read, for one.
    """
    found = []
    for key in (key for key in old.samples if key in new.samples):
        statistic = default_statistic(key[1])
        rounds = (*old.samples[key], *new.samples[key])
        if not all(has_ratio(samples, statistic) for samples in rounds):
            continue
        ratio = compare_runs(
            old.samples[key],
            new.samples[key],
            statistic=statistic,
            confidence=confidence,
            jitter=jitter,
        )
        unit, change = old.units[key], ratio.change(effect)
        name = "::".join(key)
        found.append(Compared(name, key[1], statistic, unit, ratio, change))
    return found


def runner(
    spec: WorkloadSpec,
    urls: Sequence[str],
    *,
    level: str,
    own_prompts: bool,
    headers: dict[str, str] | None = None,
    ca_file: Path | None = None,
) -> Runner:
    """Return what measures one URL in one round.

    In a round every URL gets the same prompts, which no earlier round had. URLs with
    the same workers behind them need prompts of their own, else the second finds in
    the prefix cache what the first has sent.

    Raises:
        SpecError: a URL does not say what it serves.
    """
    headers = headers or {}
    # a wrong header is refused here: a library that meets one shows its value
    bare = {url: target_for(spec, url, "", headers, ca_file=ca_file) for url in urls}
    verify = bare[urls[0]].tls() or True
    targets = {
        url: replace(target, model=first_model(url, headers, verify, hint=HINT))
        for url, target in bare.items()
    }
    tokenizer = find_tokenizer(
        None,
        url=urls[0],
        model=targets[urls[0]].model,
        headers=headers,
        verify=verify,
        is_chat=spec.endpoint == "chat",
        needs_text=spec.turns > 1,
    )
    call = os.urandom(4).hex()

    def run(url: str, number: int) -> Iterator[tuple[str, LoadResult]]:
        whose = url if own_prompts else ""
        source = PromptSource(tokenizer, f"{spec.seed}:{call}:{number}:{whose}")
        for point in sweep(spec, level):
            prompts = prompts_for(spec, point, source)
            result = run_load(
                targets[url],
                point.load,
                prompts,
                tokenizer=tokenizer.name,
                shards=spec.shards,
            )
            print(f"round {number + 1}  {url}  {point.label}: {line_of(result)}")
            yield point.label, result

    return run


def line_of(result: LoadResult) -> str:
    """Return one line: how many requests, and their median time to the first token."""
    counts = result.counts()
    times = {m.metric: m for m in measurements(result)} if counts.get("ok") else {}
    text = ", ".join(f"{n} {how}" for how, n in sorted(counts.items()))
    if "ttft" in times:
        text += f", ttft p50 {np.median(times['ttft'].samples) * 1e3:.1f} ms"
    return text


def versus(
    urls: Sequence[str],
    workload: str,
    *,
    rounds: int,
    level: str,
    own_prompts: bool,
    headers: dict[str, str],
    ca_file: Path | None,
) -> list[Side]:
    """Measure the URLs in turn.

    Args:
        headers, ca_file: As `target_for` takes them, for every URL.

    Raises:
        SpecError: there is no such workload, or a URL does not say what it serves.
        CutShort: something ended a later round than the first.
    """
    run = runner(
        read_workload(workload),
        urls,
        level=level,
        own_prompts=own_prompts,
        headers=headers,
        ca_file=ca_file,
    )
    return in_turn(urls, rounds, run)
