"""The paged cache: what is kept, who owns it, and what is forgotten first."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pd.reference.kvpool import BlockTable, KvPool, block_hashes
from pytest_pd.reference.shape import ModelShape

SHAPE = ModelShape(layers=2, heads=2, kv_heads=2, head_dim=4, itemsize_bytes=2)


def filled(dtype: str, seed: int = 0) -> KvPool:
    pool = KvPool(SHAPE, blocks=4, block_size=3, dtype=dtype)
    values = np.random.default_rng(seed).normal(size=(3, 2, 4))
    for layer in range(2):
        for kv in range(2):
            blocks, offsets = np.array([2, 2, 1]), np.array([0, 1, 2])
            pool.write(layer, kv, blocks, offsets, values + layer + 10 * kv)
    return pool


@pytest.mark.parametrize(
    ("dtype", "bits"), [("float16", 11), ("bfloat16", 8), ("float32", 24)]
)
def test_values_are_rounded_to_the_kv_type(dtype: str, bits: int):
    pool = KvPool(SHAPE, blocks=1, block_size=3, dtype=dtype)
    value = 1 + 2.0 ** (1 - bits)
    fits, lost = np.full((1, 2, 4), value), np.full((1, 2, 4), 1 + 2.0 ** (-bits - 1))

    pool.write(0, 0, np.array([0]), np.array([0]), fits)
    pool.write(0, 0, np.array([0]), np.array([1]), lost)
    read = pool.read(0, 0, np.array([0]), 2)

    assert (read[:, 0] == value).all()
    assert (read[:, 1] == 1).all()


@pytest.mark.parametrize(
    ("dtype", "step"),
    [("float16", 2.0**-10), ("bfloat16", 2.0**-7), ("float32", 2.0**-23)],
)
@pytest.mark.parametrize(
    ("steps", "kept"), [(0.25, 0), (0.5, 0), (0.75, 1), (1.25, 1), (1.5, 2)]
)
def test_rounding_is_to_the_nearest_and_ties_to_even(dtype, step, steps, kept):
    pool = KvPool(SHAPE, blocks=1, block_size=3, dtype=dtype)

    place = np.array([0])
    pool.write(0, 0, place, place, np.full((1, 2, 4), 1 + steps * step))

    assert (pool.read(0, 0, place, 1) == 1 + kept * step).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_pages_arrive_bit_by_bit(dtype: str):
    giver, taker = filled(dtype), KvPool(SHAPE, blocks=6, block_size=3, dtype=dtype)

    pages = giver.export([2, 1])
    taker.restore([5, 0], pages)

    assert pages.shape == (2, 2, 2, 2, 3, 4)
    assert np.array_equal(taker.data[:, :, 5], giver.data[:, :, 2])
    assert np.array_equal(taker.data[:, :, 0], giver.data[:, :, 1])


def test_bytes_of_pages_are_those_of_the_shape():
    pages = filled("float16").export([0, 1, 2])

    assert pages.nbytes == 3 * SHAPE.bytes_per_block(3)


def test_reading_follows_the_order_of_blocks():
    pool = filled("float32")

    read = pool.read(1, 1, np.array([2, 1]), 6)

    assert np.array_equal(read[:, :3], pool.data[1, 1, 2])
    assert np.array_equal(read[:, 3:], pool.data[1, 1, 1])


def test_a_hash_depends_on_all_blocks_before_it():
    one = list(block_hashes([1, 2, 3, 4], 2))
    other = list(block_hashes([9, 2, 3, 4], 2))

    assert one[1] != other[1]


def test_partial_blocks_have_no_hash():
    assert len(list(block_hashes([1, 2, 3, 4, 5], 2))) == 2


def test_a_shared_beginning_has_the_same_hashes():
    one = list(block_hashes([1, 2, 3, 4, 5, 6], 2))
    other = list(block_hashes([1, 2, 3, 4, 9, 9], 2))

    assert one[:2] == other[:2]


def test_all_or_nothing_is_handed_out():
    table = BlockTable(3, caching=True)

    assert table.take(4) is None
    assert table.free == 3


def test_usage_is_owned_over_all():
    table = BlockTable(4, caching=True)
    taken = table.take(3)

    assert table.used_fraction == 0.75
    table.give_back(taken)
    assert table.used_fraction == 0


def test_free_blocks_can_be_found_again_by_hash():
    table = BlockTable(4, caching=True)
    (block,) = table.take(1)
    table.remember(block, b"a")
    table.give_back([block])

    assert table.share([b"a", b"b"]) == [block]
    assert table.free == 3


def test_a_gap_ends_the_run():
    table = BlockTable(4, caching=True)
    first, third = table.take(2)
    table.remember(first, b"1")
    table.remember(third, b"3")

    assert table.share([b"1", b"2", b"3"]) == [first]


def test_a_shared_block_stays_until_its_last_owner_leaves():
    table = BlockTable(2, caching=True)
    (block,) = table.take(1)
    table.remember(block, b"a")
    table.share([b"a"])

    table.give_back([block])
    assert table.free == 1
    table.give_back([block])
    assert table.free == 2


def test_the_block_that_was_free_longest_is_forgotten_first():
    table = BlockTable(2, caching=True)
    old, new = table.take(2)
    table.remember(old, b"old")
    table.remember(new, b"new")
    table.give_back([old])
    table.give_back([new])

    table.take(1)

    assert table.share([b"old"]) == []
    assert table.share([b"new"]) == [new]


def test_the_end_of_a_request_is_forgotten_before_its_beginning():
    table = BlockTable(3, caching=True)
    blocks = table.take(3)
    for block, known in zip(blocks, (b"1", b"2", b"3"), strict=True):
        table.remember(block, known)
    table.give_back(blocks)

    table.take(1)

    assert table.share([b"1", b"2", b"3"]) == blocks[:2]


def test_without_caching_nothing_is_remembered():
    table = BlockTable(2, caching=False)
    (block,) = table.take(1)
    table.remember(block, b"a")

    assert table.share([b"a"]) == []


def test_forgetting_keeps_the_owners():
    table = BlockTable(2, caching=True)
    (block,) = table.take(1)
    table.remember(block, b"a")

    table.forget_all()

    assert table.share([b"a"]) == []
    assert table.free == 1
