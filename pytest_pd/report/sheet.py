"""Change chosen cells of a CSV file and no other byte of it. Pure.

The text is cut into rows and cells with their quotes and line ends; only a cell that
is set is written anew, so that everything else comes out as it went in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytest_pd.errors import MeasurementError, SpecError

LETTERS = re.compile(r"[A-Z]{1,3}")


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One row: cells as they lie in the file, quotes included, and its line end."""

    cells: tuple[str, ...]
    end: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A CSV file in parts; joined they are the file again, byte for byte."""

    rows: tuple[SheetRow, ...]
    delimiter: str = ","
    mark: str = ""

    def __str__(self) -> str:
        lines = [self.delimiter.join(row.cells) + row.end for row in self.rows]
        return self.mark + "".join(lines)

    def value(self, row: int, column: int) -> str:
        """Return a cell without its quotes; empty outside of the sheet."""
        if row >= len(self.rows) or column >= len(self.rows[row].cells):
            return ""
        return unquoted(self.rows[row].cells[column])

    def column(self, word: str) -> int:
        """Return the index of a column by letter (``O``, ``AA``) or header.

        ``header:O`` is the column whose header is O. The header is looked for in
        the first row that has it.

        Raises:
            SpecError: no such header.
        """
        if LETTERS.fullmatch(word):
            index = 0
            for letter in word:
                index = 26 * index + ord(letter) - ord("A") + 1
            return index - 1
        name = word.removeprefix("header:").strip()
        for row in range(len(self.rows)):
            values = [cell.strip() for cell in self._values(row)]
            if values.count(name) > 1:
                raise SpecError(
                    f"Header {name!r} stands {values.count(name)} times in row "
                    f"{row + 1}.",
                    hint="name the column by its letter",
                )
            if name in values:
                return values.index(name)
        known = [cell for cell in (self._values(0) if self.rows else []) if cell]
        raise SpecError.unknown("header", name, known)

    def _values(self, row: int) -> list[str]:
        return [unquoted(cell) for cell in self.rows[row].cells]

    def with_cell(self, row: int, column: int, text: str) -> Sheet:
        """Return the sheet with one cell set; a short row grows, others stay.

        Raises:
            MeasurementError: the row is not in the sheet.
        """
        if row >= len(self.rows):
            raise MeasurementError(
                f"Row {row + 1} is not in the sheet, which has {len(self.rows)}.",
                hint="add the row to the sheet, or choose another --first-row",
            )
        old = self.rows[row]
        cells = [*old.cells, *[""] * (column + 1 - len(old.cells))]
        cells[column] = quoted(text, self.delimiter)
        rows = [*self.rows]
        rows[row] = replace(old, cells=tuple(cells))
        return replace(self, rows=tuple(rows))


def read_sheet(text: str, delimiter: str = ",") -> Sheet:
    """Cut CSV text into its cells.

    Raises:
        MeasurementError: a quote is never closed.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    at, rows = len(mark), []
    while at < len(text):
        row, at = _row(text, at, delimiter)
        rows.append(row)
    return Sheet(tuple(rows), delimiter, mark)


def _row(text: str, at: int, delimiter: str) -> tuple[SheetRow, int]:
    cells, start, is_open = [], at, False
    while at < len(text):
        letter = text[at]
        if letter == '"':
            # a doubled quote inside closes and opens again: the same in the end
            is_open = not is_open
        elif not is_open and letter == delimiter:
            cells.append(text[start:at])
            start = at + 1
        elif not is_open and letter in "\r\n":
            end = "\r\n" if text.startswith("\r\n", at) else letter
            return SheetRow((*cells, text[start:at]), end), at + len(end)
        at += 1
    if is_open:
        raise MeasurementError(
            "The sheet has a quote that is never closed.",
            hint="open it in a spreadsheet and save it as CSV again",
        )
    return SheetRow((*cells, text[start:at]), ""), at


def unquoted(cell: str) -> str:
    """Return what a cell says."""
    if len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"')
    return cell


def quoted(text: str, delimiter: str) -> str:
    """Return a cell that says `text`."""
    if not any(letter in text for letter in (delimiter, '"', "\r", "\n")):
        return text
    return '"' + text.replace('"', '""') + '"'


def wanted_cells(words: Sequence[str]) -> list[tuple[str, str]]:
    """Read ``COLUMN=FIGURE`` words, several by comma, in order.

    Raises:
        SpecError: a word is not of this form.
    """
    found = []
    for word in ",".join(words).split(","):
        column, sign, figure = word.rpartition("=")
        if not sign or not column or "." not in figure:
            raise SpecError(
                f"{word!r} does not say which figure goes where.",
                hint="write for example O=ttft.p50:ms, or 'TTFT p99'=ttft.p99",
            )
        found.append((column.strip(), figure.strip()))
    return found
