"""A fault is data: read strictly, and striking when it says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pytest_pd.errors import SpecError
from pytest_pd.reference.faults import KINDS, Fault, Faults, parse_faults
from pytest_pd.reference.mover import damage


def struck(fault: Fault, events: int = 12) -> list[int]:
    return [index for index in range(events) if fault.strikes(index)]


def test_a_fault_strikes_always_unless_told_otherwise():
    assert struck(Fault("kv_swap"), 4) == [0, 1, 2, 3]


def test_after_lets_the_first_events_pass():
    assert struck(Fault("kv_swap", after=3), 6) == [3, 4, 5]


def test_every_counts_from_the_first_strike():
    assert struck(Fault("kv_swap", after=1, every=4)) == [1, 5, 9]


def test_count_bounds_the_strikes():
    assert struck(Fault("kv_swap", after=2, every=3, count=2)) == [2, 5]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_can_be_read_with_its_defaults(kind: str):
    fault = Fault.parse({"kind": kind})

    assert fault.options == KINDS[kind].options
    assert KINDS[kind].effect


def test_options_are_read():
    fault = Fault.parse({"kind": "kv_bit_flip", "layer": 3, "after": 5})

    assert fault.options["layer"] == 3
    assert fault.options["head"] == 0
    assert fault.after == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"kind": "kv_swop"}, "kv_swop"),
        ({"kind": "kv_swap", "layer": 1}, "option of kv_swap 'layer'"),
        ({"kind": "kv_swap", "after": -1}, "'after'"),
        ({"kind": "kv_swap", "after": "5"}, "'after'"),
        ({"kind": "kv_swap", "every": 0}, "'every'"),
        ({"kind": "kv_swap", "count": 0}, "'count'"),
        ({"after": 1}, "kind"),
        ("kv_swap", "mapping"),
    ],
)
def test_mistakes_are_named(content: object, message: str):
    with pytest.raises(SpecError, match=message):
        Fault.parse(content)


def test_a_near_name_is_suggested():
    with pytest.raises(SpecError) as caught:
        Fault.parse({"kind": "kv_swop"})

    assert "kv_swap" in caught.value.hint


def test_faults_come_as_one_or_as_list():
    texts = [
        '{"kind": "kv_swap"}',
        json.dumps([{"kind": "no_done"}, {"kind": "crash"}]),
    ]

    assert [f.kind for f in parse_faults(texts)] == ["kv_swap", "no_done", "crash"]


def test_text_that_is_no_json_is_refused():
    with pytest.raises(SpecError, match="not JSON"):
        parse_faults(["kv_swap"])


def test_each_seam_counts_its_own_events():
    faults = Faults([Fault("kv_swap", after=1), Fault("stall", after=1)])

    assert faults.fire("kv") == ()
    assert faults.fire("http") == ()
    assert [f.kind for f in faults.fire("kv")] == ["kv_swap"]
    assert [f.kind for f in faults.fire("http")] == ["stall"]


def test_replacing_counts_anew():
    faults = Faults([Fault("kv_swap")])
    faults.fire("kv")

    faults.replace([Fault("kv_stale", after=1)])

    assert faults.fire("kv") == ()
    assert [f.kind for f in faults.fire("kv")] == ["kv_stale"]


PAGES = np.random.default_rng(0).normal(size=(5, 2, 3, 2, 4, 8)).astype(np.float16)
OLDER = np.random.default_rng(1).normal(size=(5, 2, 2, 2, 4, 8)).astype(np.float16)


def changed(harmed: np.ndarray) -> set[tuple[int, int, int]]:
    """Return (layer, block, head) where anything differs."""
    layers, _, blocks, heads, _, _ = np.nonzero(harmed != PAGES)
    return set(zip(layers.tolist(), blocks.tolist(), heads.tolist(), strict=True))


def test_a_bit_flip_touches_one_block_of_one_head_of_one_layer():
    fault = Fault.parse({"kind": "kv_bit_flip", "layer": 2, "head": 1, "block": 1})

    harmed = damage(fault, PAGES, None)

    assert changed(harmed) == {(2, 1, 1)}
    assert np.array_equal(harmed[2, :, 1, 1], -PAGES[2, :, 1, 1])


def test_a_bit_flip_flips_the_bit_it_names():
    fault = Fault.parse({"kind": "kv_bit_flip", "bit": 0})

    bits = damage(fault, PAGES, None).view(np.uint16) ^ PAGES.view(np.uint16)

    assert set(np.unique(bits)) == {0, 1}


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_a_bit_flip_works_on_every_kv_type(dtype: type):
    pages = np.ones((2, 2, 1, 1, 2, 2), dtype)

    harmed = damage(Fault.parse({"kind": "kv_bit_flip"}), pages, None)

    assert np.array_equal(harmed[0], pages[0])
    assert (harmed[1] != pages[1]).all()


def test_a_swap_gives_the_pages_of_the_transfer_before():
    harmed = damage(Fault.parse({"kind": "kv_swap"}), PAGES, OLDER)

    assert np.array_equal(harmed[:, :, :2], OLDER)
    assert not harmed[:, :, 2].any()


def test_a_stale_block_is_that_of_the_transfer_before():
    harmed = damage(Fault.parse({"kind": "kv_stale", "block": 1}), PAGES, OLDER)

    assert np.array_equal(harmed[:, :, 1], OLDER[:, :, 1])
    assert np.array_equal(harmed[:, :, [0, 2]], PAGES[:, :, [0, 2]])


def test_a_truncated_transfer_ends_in_zeros():
    harmed = damage(Fault.parse({"kind": "kv_truncated", "block": 2}), PAGES, None)

    assert np.array_equal(harmed[:, :, :2], PAGES[:, :, :2])
    assert not harmed[:, :, 2].any()


@pytest.mark.parametrize("kind", ["kv_bit_flip", "kv_swap", "kv_stale", "kv_truncated"])
def test_damage_leaves_the_original_alone(kind: str):
    before = PAGES.copy()

    damage(Fault.parse({"kind": kind}), PAGES, OLDER)

    assert np.array_equal(PAGES, before)
