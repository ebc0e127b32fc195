"""Show figures over many runs, and where they changed their level.

examples:
  pytest-pd history runs                                   all runs of a folder
  pytest-pd history runs --out site --png                  history.html, .csv, plots
  pytest-pd history nightly --add runs/20260801T020000Z-k3m9x2pq
  pytest-pd history s3://bucket/nightly --add runs/A       needs fsspec and s3fs

STORE is a folder of runs, or of nights: a night is a run in a few kilobytes, so runs
may be pruned. Only equal hardware, topology (by hash), engine, kind and label are one
line. A new level takes three runs; the exit code is 0 whatever is found.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pytest_pd.command.runs import run_of
from pytest_pd.load.option import scatter, share, zero_or_more
from pytest_pd.measure.ratio import JITTER
from pytest_pd.report.history import (
    ALPHA,
    findings,
    plots_of,
    rows_of,
    tracks_of,
)
from pytest_pd.report.history_page import history_page
from pytest_pd.report.night import night_of
from pytest_pd.report.rows import to_csv
from pytest_pd.report.store import keep_night, read_nights
from pytest_pd.report.write import Content, write_files


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pytest-pd history``."""
    add = parser.add_argument
    add("store", metavar="STORE", help="folder, or a URL that fsspec knows")
    add("--add", nargs="+", type=Path, default=[], metavar="DIR", help="runs to keep")
    add("--out", type=Path, metavar="DIR", help="write history.html and history.csv")
    add("--png", action="store_true", help="with --out: plots/*.png too")
    add("--title", default="", metavar="TEXT")
    add("--alpha", type=share, default=ALPHA, metavar="SHARE", help="default 0.01")
    add(
        "--effect",
        type=zero_or_more,
        default=0.0,
        metavar="SHARE",
        help="least change told",
    )
    add(
        "--jitter",
        type=scatter,
        default=JITTER,
        metavar="SHARE",
        help="default 0.03",
    )


def run(args: argparse.Namespace) -> int:
    """Keep what is to be kept, then print the changes."""
    for path in args.add:
        print(f"kept {keep_night(args.store, night_of(run_of(path)))}")
    nights = read_nights(args.store)
    tracks = tracks_of(nights, alpha=args.alpha, effect=args.effect, jitter=args.jitter)
    found = findings(nights, tracks)
    print(f"{len(nights)} runs, {len(tracks)} figures, {len(found)} changes of level")
    for finding in found:
        print(finding)
    if args.out:
        files: dict[str, Content] = {
            "history.html": history_page(nights, tracks, found, title=args.title),
            "history.csv": to_csv(rows_of(nights, tracks)),
        }
        if args.png:
            from pytest_pd.report.png import png_of

            files |= {f"plots/{p.name}.png": png_of(p) for p in plots_of(tracks)}
        for written in write_files(args.out, files):
            print(written)
    return 0
