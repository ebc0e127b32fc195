"""Write the files of a report: each whole, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_pd.errors import PdError
from pytest_pd.report.page import make_page
from pytest_pd.report.read import RunRecord
from pytest_pd.report.rows import LONG, long_rows, to_csv, wide_rows
from pytest_pd.report.summary import summary_markdown


def files_of(
    runs: Sequence[RunRecord], out: Path, *, title: str = ""
) -> dict[str, str]:
    """Return file name to content; `out` is where they will lie."""
    return {
        "report.html": make_page(runs, out, title=title),
        "summary.md": summary_markdown(runs),
        "results.csv": to_csv(long_rows(runs), LONG),
        "results_wide.csv": to_csv(wide_rows(runs)),
    }


def write_files(out: Path, files: Mapping[str, str]) -> list[Path]:
    """Write each file whole or not at all, and return the paths.

    Raises:
        PdError: the folder cannot be written.
    """
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            partial = out / f"{name}.partial"
            partial.write_text(text, encoding="utf-8")
            written.append(partial.replace(out / name))
    except OSError as error:
        raise PdError(
            f"{str(out)!r} cannot be written: {error.strerror}.",
            hint="choose another folder with --out",
        ) from error
    return written
