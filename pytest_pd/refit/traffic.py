"""Who sends how many bytes to whom, and what that means per GPU, link and domain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_pd.refit.cells import Cells, Ints
from pytest_pd.refit.choice import Chooser
from pytest_pd.refit.shape import Grid

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Traffic:
    """One plan's matrices; row: source rank, column: target rank.

    Attributes:
        elements: Shape (ranks, ranks); the diagonal is local copying.
        messages: Shape (ranks, ranks); contiguous pieces.
        staged: Shape (ranks,); elements of staging buffers by target rank.
    """

    elements: Ints
    messages: Ints
    staged: Ints

    def remote_elements(self) -> Ints:
        """Return the matrix without its diagonal."""
        out = self.elements.copy()
        np.fill_diagonal(out, 0)
        return out

    @property
    def local(self) -> int:
        """Elements copied inside a rank."""
        return int(np.trace(self.elements))

    def remote_messages(self) -> int:
        """Return the number of messages between two ranks."""
        return int(self.messages.sum() - np.trace(self.messages))

    def crossing(self, domain_ranks: int) -> Ints:
        """Return the matrix of what leaves a domain of `domain_ranks` ranks."""
        home = np.arange(len(self.elements)) // domain_ranks
        same = home[:, None] == home[None, :]
        return np.where(same, 0, self.elements)

    def inside(self, domain_ranks: int) -> Ints:
        """Return the matrix of what moves between two ranks of one domain."""
        return self.remote_elements() - self.crossing(domain_ranks)


def make_traffic(cells: Cells, source: Grid, choose: Chooser) -> Traffic:
    """Return the matrices of the plan that `choose` makes."""
    shape = (cells.ranks, cells.ranks)
    elements, messages = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, rank in zip(*np.nonzero(cells.needed), strict=True):
        giver = choose(cells.keys[row], source, int(rank))
        elements[giver, rank] += cells.elements[row]
        messages[giver, rank] += cells.pieces[row]
    staged = cells.needed.T.astype(np.int64) @ cells.staged
    return Traffic(elements, messages, staged)


def element_counts(table: npt.NDArray[np.bool_], cells: Cells) -> Ints:
    """Return the elements in each column of a (cells, columns) table."""
    return table.T.astype(np.int64) @ cells.elements


def by_domain(table: npt.NDArray[np.bool_], domain_ranks: int) -> npt.NDArray[np.bool_]:
    """Return the (cells, domains) table of what at least one rank of a domain has."""
    starts = np.arange(0, table.shape[1], domain_ranks)
    return np.logical_or.reduceat(table, starts, axis=1)
