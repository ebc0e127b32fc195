"""Bring together what topologies need, for a site without a network.

examples:
  pytest-pd fetch local_1p1d --to bundle
  pytest-pd fetch k2_2p1d --cluster my_slurm --to bundle
  pytest-pd fetch 'vllm_cpu_*' --to bundle --no-engines

Into the folder come the tokenizer and configuration of each model (HF_ENDPOINT,
HF_TOKEN), recorded data sets, the wheels of pytest-pd and of the engines for this
Python and platform, and images.txt with the names of container images. Weights and
images are not copied. Then: pytest-pd verify --offline.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from pytest_pd.bundle.book import (
    IMAGES,
    WHEELS,
    model_folder,
    trace_file,
    write_book,
)
from pytest_pd.bundle.hub import fetch_model
from pytest_pd.bundle.need import Need, needs_of
from pytest_pd.bundle.wheels import fetch_engine, fetch_self
from pytest_pd.command.shared import add_place, cluster_of, roots_of
from pytest_pd.errors import PdError
from pytest_pd.installer.install import Options
from pytest_pd.installer.recipe import get
from pytest_pd.spec.locate import find

Step = tuple[str, Callable[[], object]]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``pytest-pd fetch``."""
    parser.add_argument("names", nargs="+", metavar="NAME|PATH|GLOB")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR")
    add_place(parser)
    parser.add_argument("--no-wheels", action="store_true", help="no wheels at all")
    parser.add_argument("--no-engines", action="store_true", help="none of engines")
    parser.add_argument(
        "--torch-index", default="", metavar="URL", help="index with torch for CPU"
    )


def run(args: argparse.Namespace) -> int:
    """Fetch, go on after what fails, and end with 1 if anything did."""
    found = find("topologies", args.names, roots_of(args))
    need = needs_of(found, cluster_of(args), roots_of(args))
    args.to.mkdir(parents=True, exist_ok=True)
    failed = 0
    for title, act in steps(need, args):
        print(title, flush=True)
        try:
            act()
        except (PdError, OSError) as error:
            print(f"  NO  {error}", flush=True)
            failed += 1
    names = "".join(f"{image}\n" for image in need.images)
    (args.to / IMAGES).write_text(names, encoding="utf-8")
    write_book(args.to, [one.name for one in found], need)
    print(f"{args.to}: {'something is missing' if failed else 'all is here'}")
    return int(failed > 0)


def steps(need: Need, args: argparse.Namespace) -> Iterator[Step]:
    """Yield what is to be done, with a title each."""
    for model in need.models:
        place = model_folder(args.to, model)
        yield f"tokenizer of {model}", partial(fetch_model, model, place, say)
    for trace in need.traces:
        yield f"data {trace}", partial(copy, trace, trace_file(args.to, trace))
    if args.no_wheels:
        return
    wheels = args.to / WHEELS
    yield "wheels of pytest-pd", partial(fetch_self, wheels, say)
    options = Options(torch_index=args.torch_index)
    for name in () if args.no_engines else need.engines:
        act = partial(fetch_engine, get(name), wheels, options, say)
        yield f"wheels of {name}", act


def copy(file: Path, into: Path) -> None:
    """Copy a recorded data set."""
    into.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, into)


def say(line: str) -> None:
    """Print at once: a download takes its time."""
    print(line, flush=True)
