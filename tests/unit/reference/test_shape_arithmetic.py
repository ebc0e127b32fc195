"""What a hand-over must move, against figures measured on real vLLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_pd.reference.shape import (
    ModelShape,
    blocks_for,
    external_tokens,
    resolve_dtype,
    transferred_bytes,
    whole_blocks,
)


@pytest.fixture
def config(tiny: Path) -> dict[str, object]:
    return json.loads((tiny / "config.json").read_text())


def test_bytes_of_a_token_are_layers_times_k_and_v_times_heads(config):
    shape = ModelShape.from_config(config, dtype="float32")

    assert shape.bytes_per_token == 5 * 2 * 2 * 64 * 4


def test_auto_is_the_type_of_the_checkpoint(config):
    shape = ModelShape.from_config(config)

    assert resolve_dtype(config, "auto") == "float16"
    assert shape.bytes_per_token == 5 * 2 * 2 * 64 * 2


def test_a_pull_moves_what_nixl_moved_in_vllm(config):
    """Five prompts of 183 tokens in blocks of 32 moved 983,040 bytes each."""
    shape = ModelShape.from_config(config, dtype="float32")

    assert transferred_bytes(shape, 183, 32) == 983_040


def test_cached_blocks_are_not_moved_again(config):
    shape = ModelShape.from_config(config, dtype="float32")

    moved = transferred_bytes(shape, 183, 32, cached_tokens=160)

    assert moved == shape.bytes_per_block(32)


def test_head_dim_may_be_derived():
    config = {
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "hidden_size": 512,
        "num_hidden_layers": 3,
    }

    shape = ModelShape.from_config(config, dtype="bfloat16")

    assert shape == ModelShape(3, 8, 2, 64, 2)


def test_without_kv_heads_every_head_has_its_own():
    config = {"num_attention_heads": 4, "hidden_size": 64, "num_hidden_layers": 1}

    assert ModelShape.from_config(config).kv_heads == 4


@pytest.mark.parametrize(
    ("prompt", "whole"), [(1, 0), (16, 0), (17, 16), (32, 16), (33, 32), (205, 192)]
)
def test_the_last_token_is_never_in_a_whole_block(prompt: int, whole: int):
    assert whole_blocks(prompt, 16) == whole


@pytest.mark.parametrize(("tokens", "blocks"), [(1, 1), (16, 1), (17, 2), (205, 13)])
def test_the_last_block_may_be_partial(tokens: int, blocks: int):
    assert blocks_for(tokens, 16) == blocks


@pytest.mark.parametrize(
    ("style", "prompt", "expected"),
    [
        ("pull", 205, 205),
        ("pull", 16, 16),
        ("shared_storage", 205, 192),
        ("shared_storage", 16, 0),
        ("shared_storage", 17, 16),
    ],
)
def test_external_tokens_by_style(style: str, prompt: int, expected: int):
    assert external_tokens(style, prompt, 16) == expected


def test_external_tokens_leave_out_what_was_cached():
    assert external_tokens("pull", 100, 16, cached_tokens=96) == 4
    assert external_tokens("shared_storage", 100, 16, cached_tokens=96) == 0
