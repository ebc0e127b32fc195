"""Content that is known everywhere: the same bits from any layout, never the poison."""

from itertools import pairwise

import numpy as np
import pytest

from pytest_pd.refit.content import bits, expected, mask, row_runs, salt, tensor_key
from pytest_pd.refit.shape import TensorKind
from pytest_pd.refit.transfer import Shard


def kind(*, dim=0, blocks=1, rows=24, cols=16):
    return TensorKind("w", "g", rows, cols, "tp", dim, blocks, 0, 1, 0)


def fill(shard, element_bytes=2):
    out = np.full(shard.shape, -1, np.int64)
    for rows, value in expected(shard, element_bytes, np.arange):
        out[rows] = value
    return out


def test_shards_are_cut_out_of_one_tensor_along_rows():
    whole = fill(Shard(0, "w", kind(), 0, 1))

    parts = [fill(Shard(0, "w", kind(), part, 3)) for part in range(3)]

    assert (np.concatenate(parts) == whole).all()


def test_shards_are_cut_out_of_one_tensor_along_columns():
    whole = fill(Shard(0, "w", kind(dim=1), 0, 1))

    parts = [fill(Shard(0, "w", kind(dim=1), part, 4)) for part in range(4)]

    assert (np.concatenate(parts, axis=1) == whole).all()


def test_a_gated_shard_holds_its_part_of_the_gate_then_of_the_up_projection():
    gated = kind(blocks=2)
    whole = fill(Shard(0, "w", gated, 0, 1))

    second = fill(Shard(0, "w", gated, 1, 3))

    assert list(row_runs(Shard(0, "w", gated, 1, 3))) == [(0, 4, 4), (4, 16, 4)]
    assert (second == np.concatenate([whole[4:8], whole[16:20]])).all()


def test_chunks_do_not_change_the_content(monkeypatch):
    shard = Shard(0, "w", kind(blocks=2), 0, 2)
    at_once = fill(shard)

    monkeypatch.setattr("pytest_pd.refit.content.CHUNK_ELEMENTS", 20)

    assert (fill(shard) == at_once).all()


@pytest.mark.parametrize("element_bytes", [1, 2, 4])
def test_content_never_has_the_sign_bit_of_the_poison(element_bytes):
    value = bits(np.arange(100_000), tensor_key("w"), element_bytes)

    assert value.min() >= 0
    assert value.max() <= mask(element_bytes)
    assert value.max() > mask(element_bytes) * 0.99


def test_content_looks_random():
    value = bits(np.arange(1 << 16), tensor_key("w"), 2)

    assert len(np.unique(value)) > 0.8 * (1 << 15)
    counts = [(value >> bit & 1).mean() for bit in range(15)]
    assert all(0.49 < share < 0.51 for share in counts)


def test_tensors_with_other_names_have_other_content():
    one, other = (fill(Shard(0, name, kind(), 0, 1)) for name in ("a", "b"))

    assert (one != other).mean() > 0.99


def test_neighbours_differ_so_that_a_shift_is_seen():
    value = bits(np.arange(1 << 16), tensor_key("w"), 2)

    assert (value[1:] != value[:-1]).mean() > 0.99


def test_iterations_differ_in_every_element():
    salts = [salt("w", iteration, 2) for iteration in range(1000)]

    assert all(a != b for a, b in pairwise(salts))
    assert len(set(salts)) == 1000


def test_salt_stays_off_the_sign_bit():
    assert all(0 <= salt("w", i, 1) <= 127 for i in range(1000))


def test_the_closed_form_in_plain_integers():
    # Numpy and torch must wrap as 64-bit arithmetic does, on every rank.
    def signed(x):
        return (x + (1 << 63)) % (1 << 64) - (1 << 63)

    def by_hand(index, key):
        x = signed(index * 0x9E3779B97F4A7C15 + key)
        x = signed((x ^ (x >> 31)) * 0xBF58476D1CE4E5B9)
        return (x >> 33) & 0x7FFF

    key = tensor_key("layers.0.mlp.linear_fc1.weight")
    indices = [0, 1, 2, 7168 * 163840, (1 << 40) + 3]

    assert key == 386893050640774569
    assert bits(np.array(indices), key, 2).tolist() == [
        by_hand(i, key) for i in indices
    ]
