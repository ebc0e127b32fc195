"""Measure an OpenAI-compatible URL with an instrument whose error is told beside it.

examples:
  pytest-pd load http://127.0.0.1:8000 --concurrency 16 --requests 160
  pytest-pd load http://127.0.0.1:8000 --concurrency 1,2,4,8 --json sweep.json
  pytest-pd load http://127.0.0.1:8000 --rate 5 --arrivals poisson --duration 30
  pytest-pd load https://api.example --model m --api-key-env API_KEY --endpoint chat
  pytest-pd load http://127.0.0.1:8000 --workload local_sweep --level quick
  pytest-pd load http://127.0.0.1:8000 --model-dir ./model --slo-ttft-ms 500
  pytest-pd load http://127.0.0.1:8000 --model-dir ./model --with aiperf

exit code: 0 if every point holds and every request succeeded, 1 if not, 2 for a
wrong call
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_pd.errors import SpecError
from pytest_pd.load.asked import Verify
from pytest_pd.load.calibrate import Calibration, Rhythm, cached, calibrate
from pytest_pd.load.external import DRIVERS
from pytest_pd.load.option import (
    above_zero,
    count,
    requests,
    seconds,
    shards,
    streams,
    tokens,
)
from pytest_pd.load.prompts import PromptSource
from pytest_pd.load.result import LoadResult
from pytest_pd.load.run import run_load
from pytest_pd.load.target import Target
from pytest_pd.load.tokenizer import find_tokenizer
from pytest_pd.load.workload import (
    LEVELS,
    SweepPoint,
    prompts_for,
    read_workload,
    sweep,
    target_for,
)
from pytest_pd.measure.trial import measure_point
from pytest_pd.measure.warm import Warmer, WarmUp, shape_of, wave_of, with_warm_up
from pytest_pd.spec.slo import SloSpec
from pytest_pd.spec.workload import WorkloadSpec
from pytest_pd.terminal.by_tool import by_tool, check_tool, shards_of
from pytest_pd.terminal.kept import Keeper
from pytest_pd.terminal.shown import figures_of
from pytest_pd.terminal.view import LiveView, plain_point

SLO_FIELDS = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd load``."""
    add = parser.add_argument
    add("url", type=base_url, help="base URL, for example http://127.0.0.1:8000")
    add("--model", default="", help="served name; default: the first of /v1/models")
    add("--endpoint", choices=("completions", "chat"), default="completions")
    add("--workload", help="name or path of a workload file, instead of what follows")
    add("--level", choices=LEVELS, default="full", help="points of the workload to run")
    add("--concurrency", type=_numbers, help="streams in flight, or a comma list")
    add("--rate", type=_floats, help="requests per second (open loop), or a comma list")
    add("--arrivals", choices=("poisson", "constant", "gamma"), default="poisson")
    add("--burstiness", type=above_zero, default=1.0, help="shape of gamma arrivals")
    add("--requests", type=requests, help="per point; default: 10 per stream")
    add("--duration", type=seconds, help="seconds per point, instead of --requests")
    add(
        "--warmup",
        type=count,
        default=2,
        help="warm-up requests per stream, after waves until two agree; 0 for none",
    )
    add("--input-tokens", type=tokens, default=128)
    add("--output-tokens", type=tokens, default=64)
    add(
        "--stop-at-eos",
        action="store_true",
        help="let answers end by themselves: for servers that do not know ignore_eos",
    )
    add("--shared-tokens", type=count, default=0, help="of the input, shared by all")
    add("--model-dir", type=Path, help="folder with the model's tokenizer")
    add("--header", action="append", default=[], metavar="NAME:VALUE")
    add("--api-key-env", metavar="VARIABLE", help="environment variable with the key")
    add("--ca-file", type=Path, help="PEM bundle to trust for https")
    add("--timeout", type=seconds, default=600.0, help="seconds per request")
    add("--seed", type=count, default=0)
    add("--engine", choices=("auto", "kernel", "httpx"), default="auto")
    add("--with", dest="tool", choices=DRIVERS, help="let this tool send the load")
    add("--tool-path", default="", help="executable of --with; default: on PATH")
    add(
        "--shards",
        type=shards,
        help="load processes; default: the workload's, else 1",
    )
    add("--scheduling", choices=("auto", "normal"), default="auto")
    add("--no-calibrate", action="store_true", help="leave the error unknown")
    add("--calibrate-seconds", type=seconds, default=2.0)
    for name in SLO_FIELDS:
        add(f"--slo-{name.replace('_', '-')}", type=above_zero, dest=f"slo_{name}")
    add("--json", type=Path, metavar="FILE", help="write everything but raw samples")
    add("--save", type=Path, metavar="DIR", help="write raw records, one .npz a point")
    add("--quiet", action="store_true", help="no live view")


def base_url(text: str) -> str:
    """Return a URL as we want it: clients of OpenAI's write ``/v1`` behind it."""
    return text.rstrip("/").removesuffix("/v1")


def _numbers(text: str) -> list[int]:
    return [streams(word) for word in text.split(",")]


def _floats(text: str) -> list[float]:
    return [above_zero(word) for word in text.split(",")]


def run(args: argparse.Namespace) -> int:
    """Run every point, print a table for each, and say whether all hold.

    Each point is written as soon as it is measured, and before it is shown.
    """
    keeper = Keeper(args.json, args.save)
    keeper.check()
    spec = _workload(args)
    headers = _headers(args)
    # it refuses a wrong header here: a library that meets one shows its value
    target = target_for(spec, args.url, args.model, headers, ca_file=args.ca_file)
    if not target.model:
        name = first_model(args.url, headers, target.tls() or True)
        target = replace(target, model=name)
    points = list(sweep(spec, args.level))
    if not points:
        raise SpecError(
            f"Workload {spec.name!r} has no point of level {args.level!r} or below.",
            hint="give --level full",
        )
    slo = _slo(args, spec)
    if args.tool:
        check_tool(args, spec, target, points, slo)
    source = None if args.tool else _source(args, spec, target)
    warmer = Warmer()
    for point in points:
        warmed = WarmUp()
        if source is None:
            result = by_tool(args, spec, point, target)
        else:
            warmed = _warm(args, spec, point, target, source, warmer)
            result = _measure(args, spec, point, target, source)
        result = with_warm_up(result, warmed)
        result, figures = figures_of(result, slo)
        keeper.keep(
            point.label,
            result,
            plain_point(point.label, result, figures),
            last=point is points[-1],
            note=warmed.line() if warmed.e2e_s else "",
        )
    keeper.end()
    return 0 if all(map(_is_good, keeper.report)) else 1


def _is_good(entry: dict[str, Any]) -> bool:
    return not entry["reasons"] and set(entry["outcomes"]) == {"ok"}


def _workload(args: argparse.Namespace) -> WorkloadSpec:
    if args.workload:
        return read_workload(args.workload)
    rates = args.rate or []
    concurrency = args.concurrency or ([] if rates else [1])
    requests = args.requests
    if rates and not (requests or args.duration):
        requests = 100
    try:
        return WorkloadSpec.model_validate(
            {
                "name": "command-line",
                "endpoint": args.endpoint,
                **_lengths(args),
                "output_tokens": args.output_tokens,
                "ignore_eos": not args.stop_at_eos,
                "concurrency": concurrency,
                "rate_per_s": rates,
                "arrivals": args.arrivals,
                "burstiness": args.burstiness,
                "requests": requests,
                "duration_s": args.duration,
                "warmup_per_concurrency": args.warmup,
                "timeout_s": args.timeout,
                "seed": args.seed,
            }
        )
    except ValueError as error:
        raise SpecError(f"The options do not fit together: {error}") from error


def _lengths(args: argparse.Namespace) -> dict[str, int]:
    if not args.shared_tokens:
        return {"input_tokens": args.input_tokens}
    unique = args.input_tokens - args.shared_tokens
    if unique < 1:
        raise SpecError(
            f"{args.shared_tokens} shared tokens leave none of {args.input_tokens} "
            "that is a prompt's own.",
            hint="raise --input-tokens: it counts the shared ones, too",
        )
    return {"isl_shared": args.shared_tokens, "isl_unique": unique}


def _headers(args: argparse.Namespace) -> dict[str, str]:
    headers = {}
    for word in args.header:
        name, found, value = word.partition(":")
        if not found:
            raise SpecError(f"Header {name!r} has no value.", hint="write NAME:VALUE")
        headers[name.strip()] = value.strip()
    return headers | key_header(args.api_key_env)


def key_header(variable: str | None) -> dict[str, str]:
    """Return the header that carries the API key of an environment variable, if named.

    Raises:
        SpecError: the variable is empty.
    """
    if not variable:
        return {}
    key = os.environ.get(variable, "").strip()
    if not key:
        raise SpecError(
            f"Environment variable {variable!r} is empty.",
            hint=f"export {variable}=...",
        )
    return {"Authorization": f"Bearer {key}"}


def first_model(
    url: str,
    headers: dict[str, str],
    verify: Verify = True,
    *,
    hint: str = "is the server up? else give --model",
) -> str:
    """Return the first name that the server serves.

    Args:
        verify: Whom https trusts, as httpx takes it.
        hint: What to look at when it does not say.

    Raises:
        SpecError: it cannot be asked, or serves none.
    """
    import httpx

    try:
        answer = httpx.get(
            f"{url.rstrip('/')}/v1/models",
            headers=headers,
            timeout=10,
            trust_env=False,
            verify=verify,
        )
        answer.raise_for_status()
        return str(answer.json()["data"][0]["id"])
    except (
        *(httpx.HTTPError, httpx.InvalidURL),
        *(ValueError, LookupError, TypeError),
    ) as error:
        raise SpecError(
            f"{url} does not say what it serves: {error}.", hint=hint
        ) from error


def _source(
    args: argparse.Namespace, spec: WorkloadSpec, target: Target
) -> PromptSource:
    tokenizer = find_tokenizer(
        args.model_dir,
        url=target.url,
        model=target.model,
        headers=target.headers,
        verify=target.tls() or True,
        is_chat=spec.endpoint == "chat",
        needs_text=spec.turns > 1,
    )
    # another salt per call: a prefix cache must not know the prompts of the last one
    return PromptSource(tokenizer, f"{args.seed}:{os.getpid()}:{os.urandom(4).hex()}")


def _slo(args: argparse.Namespace, spec: WorkloadSpec) -> SloSpec | None:
    given = {name: getattr(args, f"slo_{name}") for name in SLO_FIELDS}
    if any(given.values()):
        return SloSpec(**given)
    return spec.slo


def _warm(
    args: argparse.Namespace,
    spec: WorkloadSpec,
    point: SweepPoint,
    target: Target,
    source: PromptSource,
    warmer: Warmer,
) -> WarmUp:
    warming = wave_of(point)

    def wave() -> LoadResult:
        prompts = prompts_for(spec, warming, source)
        return run_load(target, warming.load, prompts, engine=args.engine)

    if not (args.warmup and spec.warmup_per_concurrency):
        return WarmUp()
    return warmer.warm(shape_of(args.url, spec, point), wave)


def _measure(
    args: argparse.Namespace,
    spec: WorkloadSpec,
    point: SweepPoint,
    target: Target,
    source: PromptSource,
) -> LoadResult:
    processes = shards_of(args, spec)
    shows = not args.quiet and sys.stderr.isatty()
    # a process of its own keeps the drawing away from the measuring
    shards: Any = [()] * processes if shows else processes
    view = LiveView(point.label) if shows else None

    def once(prompts: Any) -> LoadResult:
        limit_s = point.load.limit_s
        with view.running(len(prompts), limit_s) if view else nullcontext() as tick:
            return run_load(
                target,
                point.load,
                prompts,
                tokenizer=source.tokenizer.name,
                engine=args.engine,
                shards=shards,
                scheduling=args.scheduling,
                on_tick=tick,
            )

    def make_prompts() -> Any:
        return prompts_for(spec, point, source)

    if args.no_calibrate:
        return once(make_prompts())
    return measure_point(
        once, make_prompts, _calibrator(args, processes), error_share=spec.error_share
    )


def _calibrator(args: argparse.Namespace, shards: int) -> Any:
    def calibrator(rhythm: Rhythm, may_be_old: bool) -> Calibration:
        return cached(
            rhythm,
            may_be_old=may_be_old,
            make=lambda r: calibrate(
                r,
                duration_s=args.calibrate_seconds,
                engine=args.engine,
                shards=shards,
                scheduling=args.scheduling,
            ),
            kind=f"{args.engine}-{shards}-{args.scheduling}",
        )

    return calibrator
