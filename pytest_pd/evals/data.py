"""Documents of the tasks we ship, drawn from a seed. Pure, but for `write`.

Every answer is looked up in the prompt, word by word, so a model that retrieves is
right by construction and a damaged block of KV gives wrong words. Words are
``w000`` to ``w255``; the forms are those of `pytest_pd.reference.prompts`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pytest_pd.reference.prompts import SYMBOLS, block_edge_lengths

Document = Mapping[str, object]

ANSWER_WORDS = {"pd_recall": 24, "pd_copy": 32, "pd_arithmetic": 16, "pd_turns": 16}
"""Words of each answer: ``max_gen_toks`` of the task file says the same."""
SMALL_BLOCK = 16
"""Tokens of the smallest KV block in use; every larger one is a multiple."""
STRIDE = 5
"""Pairs from one look-up to the next: 15 tokens, so no block of 16 is left out."""
CHOICE_WORDS = 4


def word(symbol: int) -> str:
    """Return the text of one symbol."""
    return f"w{symbol:03d}"


def words(symbols: list[int]) -> str:
    """Return symbols as text with single spaces."""
    return " ".join(map(word, symbols))


def table(edges: list[tuple[int, int]], fill: int = 0) -> str:
    """Return look-up pairs as text, `fill` commas in front."""
    pairs = " ".join(f", {word(left)} {word(right)}" for left, right in edges)
    return ", " * fill + pairs


def covering_cycle(draw: random.Random, pairs: int, chain: int) -> list[int]:
    """Return the order in which a chain visits the pairs of a prompt.

    The first `chain` look-ups touch every `STRIDE`-th pair and the last, as long as
    there are so many: then each block of `SMALL_BLOCK` tokens is read at least once.
    """
    stops = sorted({*range(0, pairs, STRIDE), pairs - 1})[:chain]
    others = [pair for pair in range(pairs) if pair not in set(stops)]
    draw.shuffle(stops)
    draw.shuffle(others)
    return stops + others


def chain_question(
    draw: random.Random, tokens: int, chain: int
) -> tuple[list[tuple[int, int]], list[int], int]:
    """Return edges in prompt order, the symbols along the chain, and the fill.

    Args:
        tokens: Words of the prompt, question included; 9 or more.
    """
    pairs = min((tokens - 2) // 3, SYMBOLS)
    order = covering_cycle(draw, pairs, chain)
    cycle = draw.sample(range(SYMBOLS), pairs)
    edges = [(0, 0)] * pairs
    for step, place in enumerate(order):
        edges[place] = (cycle[step], cycle[(step + 1) % pairs])
    path = [cycle[step % pairs] for step in range(chain + 1)]
    return edges, path, tokens - 2 - 3 * pairs


def recall(seed: object, count: int = 200) -> Iterator[Document]:
    """Chains of look-ups that read every block; a third of the lengths at block edges.

    A prompt of N words has N tokens, or N + 1 where the server adds ``<s>``.
    """
    chain = ANSWER_WORDS["pd_recall"]
    edges_at = [n for blocks in range(3, 22) for n in block_edge_lengths(16, blocks)]
    for index in range(count):
        draw = random.Random(f"pd_recall:{seed}:{index}")
        tokens = edges_at[index] if index < len(edges_at) else draw.randint(40, 340)
        edges, path, fill = chain_question(draw, tokens, chain)
        yield {
            "prompt": f"{table(edges, fill)} ? {word(path[0])}",
            "answer": words(path[1:]),
            "tokens": tokens,
        }


def copy(seed: object, count: int = 24) -> Iterator[Document]:
    """Copy a stretch of a long list of words; it lies at another depth each time."""
    chain = ANSWER_WORDS["pd_copy"]
    for index in range(count):
        draw = random.Random(f"pd_copy:{seed}:{index}")
        listed = draw.sample(range(SYMBOLS), 240)
        start = index * (len(listed) - chain - 1) // max(1, count - 1)
        before, after = draw.randint(60, 300), draw.randint(60, 300)
        text = ", " * before + words(listed) + " ," * after
        yield {
            "prompt": f"{text} ? {word(listed[start])}",
            "answer": words(listed[start + 1 : start + 1 + chain]),
            "tokens": before + after + 242,
        }


def arithmetic(seed: object, count: int = 40) -> Iterator[Document]:
    """Count in steps: ``x -> (x + step) mod m``, the sums written in the prompt."""
    length = ANSWER_WORDS["pd_arithmetic"]
    for index in range(count):
        draw = random.Random(f"pd_arithmetic:{seed}:{index}")
        modulus = draw.randint(24, 120)
        step = draw.randint(2, modulus - 2)
        start = draw.randrange(modulus)
        edges = [(x, (x + step) % modulus) for x in range(modulus)]
        draw.shuffle(edges)
        answer = [(start + k * step) % modulus for k in range(1, length + 1)]
        yield {
            "prompt": f"{table(edges)} ? {word(start)}",
            "answer": words(answer),
            "step": step,
            "modulus": modulus,
        }


def turns(seed: object, count: int = 40, of_each: int = 4) -> Iterator[Document]:
    """Conversations: each turn repeats the one before and asks once more.

    The prompt of a turn begins with the prompt and answer of the turn before, which
    is what a prefix cache is for.
    """
    chain = ANSWER_WORDS["pd_turns"]
    for talk in range(count // of_each):
        draw = random.Random(f"pd_turns:{seed}:{talk}")
        pairs = draw.randint(30, 80)
        cycle = draw.sample(range(SYMBOLS), pairs)
        edges = [(cycle[i], cycle[(i + 1) % pairs]) for i in range(pairs)]
        draw.shuffle(edges)
        text = table(edges)
        for turn in range(of_each):
            start = draw.randrange(pairs)
            answer = words([cycle[(start + k) % pairs] for k in range(1, chain + 1)])
            text = f"{text} ? {word(cycle[start])}"
            yield {"prompt": text, "answer": answer, "talk": talk, "turn": turn}
            text = f"{text} {answer}"


def choice(seed: object, count: int = 40) -> Iterator[Document]:
    """Which of four continuations follows? Judged by log-likelihood, not by text.

    Wrong ones part from the right one at their first word.
    """
    for index in range(count):
        draw = random.Random(f"pd_choice:{seed}:{index}")
        edges, path, fill = chain_question(draw, draw.randint(60, 240), CHOICE_WORDS)
        right = path[1:]
        wrong = [draw.sample(range(SYMBOLS), CHOICE_WORDS) for _ in range(3)]
        for other in wrong:
            other[0] = (right[0] + draw.randint(1, SYMBOLS - 1)) % SYMBOLS
        place = draw.randrange(4)
        choices = [words(one) for one in [*wrong[:place], right, *wrong[place:]]]
        yield {
            "prompt": f"{table(edges, fill)} ? {word(path[0])}",
            "choices": choices,
            "gold": place,
        }


MAKERS: Mapping[str, Callable[[object], Iterator[Document]]] = {
    "pd_recall": recall,
    "pd_copy": copy,
    "pd_arithmetic": arithmetic,
    "pd_turns": turns,
    "pd_choice": choice,
}
"""Task to what draws its documents."""


def write(folder: Path, seed: object) -> None:
    """Write ``<task>.jsonl`` of every shipped task; the same bytes for one seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, make in MAKERS.items():
        lines = [json.dumps(document) + "\n" for document in make(seed)]
        (folder / f"{task}.jsonl").write_text("".join(lines), encoding="utf-8")
