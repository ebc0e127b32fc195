"""From logits to a token. Pure but for the stream of random numbers it is given."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pytest_pd.reference.request import LogprobRow, Sampling, TokenLogprob

Floats = NDArray[np.float64]


def choose(
    logits: Floats, sampling: Sampling, uniform: float, *, banned: Iterable[int] = ()
) -> int:
    """Return the next token.

    Args:
        logits: Shape (vocabulary,).
        sampling: Temperature and filters.
        uniform: Random number in [0, 1); unused when greedy.
        banned: Tokens that may not be chosen.
    """
    ruled = logits.copy()
    ruled[list(banned)] = -np.inf
    if sampling.temperature == 0:
        return int(ruled.argmax())
    ruled = _filtered(ruled / sampling.temperature, sampling)
    cumulative = np.cumsum(np.exp(ruled - ruled.max()))
    return int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))


def _filtered(logits: Floats, sampling: Sampling) -> Floats:
    """Rule out tokens by top_k, then top_p, then min_p, as vLLM orders them."""
    order = np.argsort(-logits, kind="stable")
    if 0 < sampling.top_k < len(logits):
        logits[order[sampling.top_k :]] = -np.inf
    if sampling.top_p < 1:
        share = np.exp(log_softmax(logits)[order])
        before = np.cumsum(share) - share
        logits[order[before >= sampling.top_p]] = -np.inf
    if sampling.min_p > 0:
        logits[logits < logits.max() + np.log(sampling.min_p)] = -np.inf
    return logits


def log_softmax(logits: Floats) -> Floats:
    """Return natural logarithms of the probabilities, over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def logprob_row(logits: Floats, token: int, best: int) -> LogprobRow:
    """Return the row of `token` and the `best` most probable ones, best first.

    The rank counts tokens at least as probable, so that equal ones rank last.
    """
    logprobs = log_softmax(logits)
    order = np.argsort(-logprobs, kind="stable")[:best]
    rest = (int(other) for other in order if other != token)
    own = int((logprobs >= logprobs[token]).sum())
    others = (
        TokenLogprob(
            other, float(logprobs[other]), 1 + int(np.flatnonzero(order == other)[0])
        )
        for other in rest
    )
    return (TokenLogprob(token, float(logprobs[token]), own), *others)
