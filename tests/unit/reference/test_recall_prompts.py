"""Prompts with a known answer: exact lengths, repeatable, and answered right."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_pd.reference.prompts import block_edge_lengths, make_recall
from pytest_pd.reference.tokenizer import Tokenizer


def test_a_prompt_unpacks_to_text_and_answer():
    text, expected = make_recall(7, pairs=4, chain=3)

    assert text.startswith(", w")
    assert len(expected) == 3


def test_the_answer_follows_the_pairs_of_the_prompt():
    prompt = make_recall(3, pairs=12, chain=30)
    body, _, start = prompt.text.rpartition(" ? ")
    pairs = dict(pair.split() for pair in body.removeprefix(", ").split(" , "))

    symbol, followed = start, []
    for _ in range(30):
        symbol = pairs[symbol]
        followed.append(symbol)

    assert prompt.expected == followed


def test_a_chain_as_long_as_the_cycle_reads_every_pair():
    prompt = make_recall(3, pairs=12, chain=12)

    assert len(set(prompt.expected)) == 12


def test_same_seed_same_prompt():
    assert make_recall(5) == make_recall(5)


def test_other_seed_other_prompt():
    assert make_recall(5).text != make_recall(6).text


@pytest.mark.parametrize("length", [*range(9, 40), 255, 256, 257, 771, 772, 1000])
def test_length_is_exact(tokenizer: Tokenizer, length: int):
    prompt = make_recall("exact", length_tokens=length)

    assert prompt.prompt_tokens == length
    assert len(tokenizer.encode(prompt.text)) == length


def test_expected_text_is_what_a_completion_says():
    prompt = make_recall(1, pairs=3, chain=2)

    assert prompt.expected_text == f" {prompt.expected[0]} {prompt.expected[1]}"


@pytest.mark.parametrize("pairs", [-1, 0, 1, 257])
def test_impossible_cycles_are_refused(pairs: int):
    with pytest.raises(ValueError, match="2 to 256"):
        make_recall(0, pairs=pairs)


def test_a_length_without_room_for_a_cycle_is_refused():
    with pytest.raises(ValueError, match="cycle"):
        make_recall(0, length_tokens=8)


def test_block_edges_lie_round_the_edge():
    assert [n % 16 for n in block_edge_lengths(16, 3)] == [15, 0, 1]


@pytest.mark.parametrize("module", ["prompts", "shape", "recall"])
def test_pure_modules_need_no_server(module: str):
    code = f"import sys, pytest_pd.reference.{module}; print('aiohttp' in sys.modules)"

    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == "False"


@pytest.mark.parametrize("module", ["prompts", "shape"])
def test_arithmetic_needs_no_numpy(module: str):
    code = f"import sys, pytest_pd.reference.{module}; print('numpy' in sys.modules)"

    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert found.stdout.strip() == "False"
