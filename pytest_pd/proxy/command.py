"""Two-stage router: prefill with one token, then decode, streamed through.

Examples:
  pytest-pd proxy --port 8000 --prefill-url http://localhost:8100 \\
      --decode-url http://localhost:8200
  pytest-pd proxy --prefill-url http://n0:8100 http://n1:8100 \\
      --decode-url http://n2:8200 --policy consistent_hash --transfer pull
  pytest-pd proxy --prefill-url http://localhost:8100/v1/completions \\
      --decode-url http://localhost:8200/v1/completions \\
      --rate-limit 40 --max-concurrent 100
  pytest-pd proxy --prefill-url http://n0:8087@0 http://n0:8087@1 \\
      --decode-url http://n1:8087@0 http://n1:8087@1   # one rank each
  pytest-pd proxy --transfer none --decode-url http://a:8000 http://b:8000
  pytest-pd proxy ... --fault '{"kind": "bypass_prefill", "after": 10}'
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import cast

from pytest_pd.errors import SpecError
from pytest_pd.proxy.ask import Transfer
from pytest_pd.proxy.fault import KINDS, Fault, parse_faults
from pytest_pd.proxy.options import ProxyOptions
from pytest_pd.proxy.policy import POLICIES
from pytest_pd.proxy.worker import Address, parse_address

_LEVELS = ("debug", "info", "warning", "error")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    _add_addresses(parser)
    _add_limits(parser)
    _add_failures(parser)
    _add_faults(parser)


def _add_addresses(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    urls = "URL of a {} worker, with or without /v1/completions; @N for one rank"
    for role in ("prefill", "decode"):
        add(
            f"--{role}-url",
            nargs="+",
            action="extend",
            default=[],
            metavar="URL",
            help=urls.format(role),
        )
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=_port, default=8000, help="0 takes a free one (%(default)s)")
    add("--policy", choices=sorted(POLICIES), default="round_robin")
    add(
        "--transfer",
        choices=[*map(str, Transfer)],
        default=str(Transfer.AUTO),
        help="how KV goes over; auto asks for kv_transfer_params and uses what comes; "
        "none: decode workers alone (%(default)s)",
    )
    add("--api-key-env", metavar="NAME", help="variable with a key for the workers")
    add("--log-level", choices=_LEVELS, default="info")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    none = "0 for no limit (%(default)s)"
    add("--rate-limit", type=_at_least(0.0), default=0.0, help=f"requests/s, {none}")
    add(
        "--rate-burst",
        type=_at_least(0.0),
        default=0.0,
        help="requests at once; 0: as many as --rate-limit",
    )
    add("--max-concurrent", type=_count, default=0, help=f"requests in flight, {none}")
    add("--max-queue", type=_count, default=1024, help="may wait (%(default)s)")
    add("--queue-timeout-s", type=_at_least(0.001), default=60.0, help="%(default)s")
    add("--max-body-mib", type=_at_least(0.001), default=256.0, help="%(default)s")


def _add_failures(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--retries", type=_count, default=2, help="per stage (%(default)s)")
    add("--connect-timeout-s", type=_at_least(0.001), default=2.0, help="%(default)s")
    add(
        "--idle-timeout-s",
        type=_at_least(0.001),
        default=300.0,
        help="without a byte from a worker (%(default)s)",
    )
    add("--health-interval-s", type=_at_least(0.001), default=1.0, help="%(default)s")
    add("--health-timeout-s", type=_at_least(0.001), default=2.0, help="%(default)s")
    add("--failure-threshold", type=_count, default=2, help="in a row (%(default)s)")
    add("--drain-timeout-s", type=_at_least(0.0), default=5.0, help="%(default)s")


def _add_faults(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="JSON",
        help=f"a fault, a list, or @FILE; kinds: {', '.join(KINDS)}",
    )
    parser.add_argument(
        "--allow-faults",
        action="store_true",
        help="let GET, POST, DELETE /pd/faults change faults while it runs",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop, and return 0."""
    options = make_options(args)
    logging.basicConfig(
        level=args.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    from pytest_pd.proxy.server import serve

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(options))
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory where uvloop is installed, else None for asyncio's."""
    try:
        uvloop = import_module("uvloop")
    except ImportError:
        return None
    return cast("Callable[[], asyncio.AbstractEventLoop]", uvloop.new_event_loop)


def make_options(args: argparse.Namespace) -> ProxyOptions:
    """Return the options that a command line says.

    Raises:
        SpecError: a URL, fault or variable is not what it should be.
    """
    _check_roles(args)
    return ProxyOptions(
        prefill=_addresses("--prefill-url", args.prefill_url),
        decode=_addresses("--decode-url", args.decode_url),
        host=args.host,
        port=args.port,
        policy=args.policy,
        transfer=Transfer(args.transfer),
        rate_limit_rps=args.rate_limit,
        rate_burst=args.rate_burst,
        max_concurrent=args.max_concurrent,
        max_queue=args.max_queue,
        queue_timeout_s=args.queue_timeout_s,
        retries=args.retries,
        connect_timeout_s=args.connect_timeout_s,
        idle_timeout_s=args.idle_timeout_s,
        health_interval_s=args.health_interval_s,
        health_timeout_s=args.health_timeout_s,
        failure_threshold=args.failure_threshold,
        drain_timeout_s=args.drain_timeout_s,
        max_body_bytes=int(args.max_body_mib * 2**20),
        api_key=_key(args.api_key_env),
        faults=tuple(fault for text in args.fault for fault in _faults(text)),
        allow_faults=args.allow_faults,
    )


def _check_roles(args: argparse.Namespace) -> None:
    if not args.decode_url:
        raise SpecError("There is no decode worker.", hint="--decode-url URL")
    if bool(args.prefill_url) == (args.transfer == Transfer.NONE):
        raise SpecError(
            f"--transfer {args.transfer} does not go with "
            f"{len(args.prefill_url)} prefill worker(s).",
            hint="two stages need --prefill-url and a transfer; "
            "one stage needs --transfer none and no --prefill-url",
        )


def _addresses(option: str, texts: list[str]) -> tuple[Address, ...]:
    found = tuple(parse_address(text) for text in texts)
    for address in found:
        if found.count(address) > 1:
            raise SpecError(
                f"{option} names {address.name} twice.",
                hint="name each worker once; its ranks are URL@0, URL@1, ...",
            )
    return found


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    if not os.environ.get(variable):
        raise SpecError(
            f"The environment variable {variable!r} of --api-key-env is not set.",
            hint=f"export {variable}=..., or leave the option out",
        )
    return os.environ[variable]


def _faults(text: str) -> tuple[Fault, ...]:
    if not text.startswith("@"):
        return parse_faults(text)
    path = Path(text[1:])
    try:
        return parse_faults(path.read_bytes())
    except OSError as error:
        raise SpecError(
            f"The file of --fault cannot be read: {error.strerror}.", where=path
        ) from error


def _port(text: str) -> int:
    if not 0 <= (port := int(text)) < 65536:
        raise argparse.ArgumentTypeError(f"{port} is not a port")
    return port


def _count(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than 0")
    return number


def _at_least(least: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = float(text)
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(
                f"{text} is not a number from {least:g} up"
            )
        return value

    return number
