"""Chosen figures into columns of an existing sheet, with an archive of the run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.report.points import Point, points_of
from pytest_pd.report.read import RunRecord
from pytest_pd.report.rows import figures, identity
from pytest_pd.report.sheet import Sheet, read_sheet, wanted_cells
from pytest_pd.report.write import Content, files_of

SCALES = {"": 1.0, "s": 1.0, "ms": 1e3, "us": 1e6}
ENCODING = "utf-8"


@dataclass(frozen=True, slots=True)
class SheetWish:
    """What goes where.

    Attributes:
        cells: ``COLUMN=METRIC.STATISTIC[:UNIT]`` words.
        match: ``COLUMN=FIELD``: a point goes into the rows whose cell says it.
        first_row: Row of the first point, from 1, where nothing is matched.
    """

    path: Path
    cells: tuple[str, ...]
    match: str = ""
    first_row: int = 2
    delimiter: str = ","


def sheet_files(runs: Sequence[RunRecord], wish: SheetWish) -> dict[str, Content]:
    """Return the sheet's name to its new content; all other bytes stay.

    Raises:
        SpecError: a wish names no column or figure.
        MeasurementError: no point holds, a row is missing, or the sheet is broken.
        PdError: the sheet cannot be read.
    """
    before = read_bytes(wish.path)
    sheet = read_sheet(before.decode(ENCODING, "surrogateescape"), wish.delimiter)
    points = [point for point in points_of(runs) if point.is_valid]
    if not points:
        raise MeasurementError("The runs have no measured point that holds.")
    filled = filled_in(sheet, points, wish)
    return {wish.path.name: str(filled).encode(ENCODING, "surrogateescape")}


def read_bytes(path: Path) -> bytes:
    """Return a sheet's bytes.

    Raises:
        SpecError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(
            f"Sheet {str(path)!r} cannot be read: {error.strerror}.",
            hint="name an existing CSV file with --sheet",
        ) from error


def archive_files(
    runs: Sequence[RunRecord], wish: SheetWish, title: str, out: Path
) -> dict[str, Content]:
    """Return what an archive folder gets: the report, and the sheet as it was."""
    files: dict[str, Content] = {**files_of(runs, out, title=title)}
    files[f"before-{wish.path.name}"] = read_bytes(wish.path)
    return files


def filled_in(sheet: Sheet, points: Sequence[Point], wish: SheetWish) -> Sheet:
    """Return the sheet with the figures of all points.

    Raises:
        SpecError: no such column, figure or first row.
        MeasurementError: a point has no row, or two points have the same.
    """
    chosen = [(sheet.column(where), what) for where, what in wanted_cells(wish.cells)]
    if wish.match:
        _check_rows(sheet, points, wish)
    elif wish.first_row < 1:
        raise SpecError(
            f"--first-row {wish.first_row} is no row.", hint="rows count from 1"
        )
    taken: dict[int, Point] = {}
    for index, point in enumerate(points):
        here = [wish.first_row - 1 + index]
        for row in rows_for(sheet, point, wish) if wish.match else here:
            if row in taken:
                names = f"{taken[row].label} of {taken[row].topology} and {point.label}"
                raise MeasurementError(
                    f"Row {row + 1} is wanted by {names} of {point.topology}.",
                    hint="name one run, or match a column that tells them apart",
                )
            taken[row] = point
            for column, what in chosen:
                sheet = sheet.with_cell(row, column, figure_text(point, what))
    return sheet


def _check_rows(sheet: Sheet, points: Sequence[Point], wish: SheetWish) -> None:
    """Refuse points without a row.

    A point that has no such field, as open loop has no ``concurrency``, needs none.
    """
    field = wish.match.rpartition("=")[2]
    found = [(rows_for(sheet, point, wish), _field(point, field)) for point in points]
    lost = [told for rows, told in found if told and not rows]
    if lost or not any(told for _, told in found):
        raise MeasurementError(
            f"No row of the sheet matches {wish.match!r}: "
            f"{', '.join(lost) or 'no point has that field'}.",
            hint="look at the values in that column, or add the rows",
        )


def rows_for(sheet: Sheet, point: Point, wish: SheetWish) -> list[int]:
    """Return the rows whose matched cell says what the point is."""
    where, sign, field = wish.match.rpartition("=")
    if not sign:
        raise SpecError(
            f"--match {wish.match!r} names no field.",
            hint="write for example --match Concurrency=concurrency",
        )
    column, wanted = sheet.column(where), _field(point, field)
    if not wanted:
        return []
    return [
        row for row in range(len(sheet.rows)) if _same(sheet.value(row, column), wanted)
    ]


def _field(point: Point, name: str) -> str:
    """Return what a point is; empty where it has no such field."""
    known = {
        **identity(point.any, point.run_id),
        "workload": point.workload,
        "label": point.any.info.get("label") or point.label,
    }
    if name not in known:
        raise SpecError.unknown("field", name, known)
    return "" if known[name] is None else str(known[name])


def _same(cell: str, wanted: str) -> bool:
    """Compare as numbers where both are: 8, 8.0 and " 8" are the same."""
    try:
        return float(cell) == float(wanted)
    except ValueError:
        return cell.strip() == wanted.strip()


def figure_text(point: Point, what: str) -> str:
    """Return one figure with six digits.

    Args:
        what: ``METRIC.STATISTIC[:UNIT]``, for example ``ttft.p99:ms`` or
            ``output_token_time.tokens_per_s``.

    Raises:
        SpecError: the point has no such figure, or the unit does not fit.
    """
    name, _, unit = what.partition(":")
    metric, _, statistic = name.partition(".")
    if metric not in point.entries:
        raise SpecError.unknown("metric", metric, point.entries)
    entry = point.entries[metric]
    found = figures(entry)
    if statistic not in found:
        raise SpecError.unknown(f"figure of {metric}", statistic, found)
    is_time = statistic in entry.statistics() and statistic != "count"
    if unit not in SCALES or (unit and not is_time):
        raise SpecError(
            f"{what!r} has a unit that does not fit.",
            hint="s, ms and us are for times; other figures have their own unit",
        )
    value = found[statistic] * SCALES[unit]
    return f"{value:.6g}" if math.isfinite(value) else ""
