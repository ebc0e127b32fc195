"""From logits to tokens: greedy, filtered, seeded, and how probable it was."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pd.reference.request import Sampling
from pytest_pd.reference.sampling import choose, log_softmax, logprob_row

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3]))


def drawn(sampling: Sampling, count: int = 4000) -> np.ndarray:
    tokens = [choose(LOGITS, sampling, (i + 0.5) / count) for i in range(count)]
    return np.bincount(tokens, minlength=4) / count


def test_greedy_takes_the_most_probable():
    assert choose(LOGITS, Sampling(temperature=0), 0.99) == 1


def test_greedy_takes_the_first_of_equals():
    assert choose(np.zeros(5), Sampling(temperature=0), 0.0) == 0


def test_banned_tokens_are_never_taken():
    assert choose(LOGITS, Sampling(temperature=0), 0.0, banned=[1]) == 3


def test_shares_are_the_probabilities():
    assert np.allclose(drawn(Sampling()), [0.1, 0.4, 0.2, 0.3], atol=1e-3)


def test_a_low_temperature_sharpens():
    share = np.array([0.1, 0.4, 0.2, 0.3]) ** 2

    assert np.allclose(drawn(Sampling(temperature=0.5)), share / share.sum(), atol=1e-3)


def test_top_k_keeps_the_best():
    assert np.allclose(drawn(Sampling(top_k=2)), [0, 4 / 7, 0, 3 / 7], atol=1e-3)


def test_top_p_keeps_enough_of_the_best():
    assert np.allclose(drawn(Sampling(top_p=0.65)), [0, 4 / 7, 0, 3 / 7], atol=1e-3)


def test_top_p_keeps_at_least_one():
    assert np.allclose(drawn(Sampling(top_p=1e-9)), [0, 1, 0, 0])


def test_min_p_is_relative_to_the_best():
    found = drawn(Sampling(min_p=0.6))

    assert np.allclose(found, [0, 4 / 7, 0, 3 / 7], atol=1e-3)


def test_logits_are_left_as_they_were():
    before = LOGITS.copy()

    choose(LOGITS, Sampling(top_k=1), 0.5, banned=[0])

    assert np.array_equal(LOGITS, before)


def test_log_softmax_survives_large_logits():
    found = log_softmax(np.array([1000.0, 1000.0]))

    assert np.allclose(found, np.log(0.5))


def test_a_row_starts_with_the_token_and_goes_on_with_the_best():
    row = logprob_row(LOGITS, 2, 2)

    assert [entry.token for entry in row] == [2, 1, 3]
    assert [entry.rank for entry in row] == [3, 1, 2]
    assert np.isclose(row[0].logprob, np.log(0.2))


def test_a_token_among_the_best_is_not_told_twice():
    row = logprob_row(LOGITS, 3, 2)

    assert [entry.token for entry in row] == [3, 1]


def test_equal_tokens_rank_behind_each_other():
    """As vLLM counts: 262 equal logits give rank 262."""
    assert logprob_row(np.zeros(7), 3, 0)[0].rank == 7


@pytest.mark.parametrize("best", [0, 1, 4])
def test_rows_have_as_many_entries_as_asked(best: int):
    assert len(logprob_row(LOGITS, 1, best)) == max(best, 1)


def test_copies_of_a_seeded_request_differ():
    sampling = Sampling(seed=5)

    assert sampling.for_copy(0).seed == 5
    assert sampling.for_copy(2).seed == 7
    assert Sampling().for_copy(2).seed is None
