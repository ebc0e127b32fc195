"""Documents of the shipped tasks: right by construction, all blocks read, one seed."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from pytest_pd.evals import data
from pytest_pd.reference.prompts import block_edge_lengths

ROOT = Path(__file__).parents[3]
GENERATED = sorted(data.ANSWER_WORDS)


def follow(prompt: str, count: int) -> str:
    """Answer as the recall model does: look up the word after the last one's place."""
    seen = prompt.split()
    for _ in range(count):
        places = [i for i in range(1, len(seen)) if seen[i - 1] == seen[-1]]
        found = {seen[i] for i in places if seen[i] not in (",", "?")}
        assert len(found) == 1, f"{seen[-1]} is followed by {found}"
        seen.append(found.pop())
    return " ".join(seen[-count:])


@pytest.mark.parametrize("task", GENERATED)
def test_every_answer_follows_from_its_prompt(task):
    length = data.ANSWER_WORDS[task]

    for document in data.MAKERS[task](3):
        assert follow(str(document["prompt"]), length) == document["answer"]


def test_one_choice_of_four_is_right():
    for document in data.choice(3):
        right = follow(str(document["prompt"]), data.CHOICE_WORDS)
        assert [c == right for c in document["choices"]].index(True) == document["gold"]
        assert len({c.split()[0] for c in document["choices"]} - {right}) >= 3


@pytest.mark.parametrize("task", sorted(data.MAKERS))
def test_one_seed_gives_the_same_documents_and_another_others(task):
    make = data.MAKERS[task]

    assert list(make(5)) == list(make(5))
    assert list(make(5)) != list(make(6))


@pytest.mark.parametrize("task", sorted(data.MAKERS))
def test_no_prompt_comes_twice(task):
    prompts = [document["prompt"] for document in data.MAKERS[task](0)]

    assert len(set(prompts)) == len(prompts)


@pytest.mark.parametrize("has_bos", [False, True], ids=["bare", "with-bos"])
def test_a_recall_chain_reads_every_block_that_holds_a_pair(has_bos):
    for document in data.recall(1):
        words = ["<s>"] * has_bos + str(document["prompt"]).split()
        edges = enumerate(pairwise(words), start=1)
        place = {a: i for i, (a, b) in edges if a[0] == b[0] == "w"}
        chain = [words[-1], *str(document["answer"]).split()[:-1]]
        read = {place[word] // data.SMALL_BLOCK for word in chain}
        last_pair = len(words) - 3  # what follows is the question
        assert read >= set(range(last_pair // data.SMALL_BLOCK + 1)), document["tokens"]


def test_recall_prompts_lie_at_block_edges():
    lengths = {document["tokens"] for document in data.recall(0)}

    for blocks in (3, 8, 21):
        assert lengths.issuperset(block_edge_lengths(16, blocks))
    counted = {len(str(document["prompt"]).split()) for document in data.recall(0)}
    assert counted == lengths


def test_turns_repeat_the_turn_before():
    talks: dict[object, list[str]] = {}
    for document in data.turns(2):
        before = talks.setdefault(document["talk"], [])
        if before:
            assert str(document["prompt"]).startswith(before[-1])
        before.append(f"{document['prompt']} {document['answer']}")
    assert {len(talk) for talk in talks.values()} == {4}


def test_copies_come_from_all_depths():
    depths = [
        str(d["prompt"]).split().index(str(d["answer"]).split()[0]) / int(d["tokens"])
        for d in data.copy(1)
    ]

    assert min(depths) < 0.4
    assert max(depths) > 0.6


@pytest.mark.parametrize("task", GENERATED)
def test_task_files_ask_for_as_many_words_as_answers_have(task):
    text = (ROOT / "fixtures" / "evals" / "tasks" / f"{task}.yaml").read_text()
    content = yaml.safe_load(text)

    assert content["task"] == task
    assert content["generation_kwargs"]["max_gen_toks"] == data.ANSWER_WORDS[task]
    assert content["dataset_kwargs"]["data_files"]["test"] == f"data/{task}.jsonl"


def test_files_are_written_whole(tmp_path):
    data.write(tmp_path / "data", 1)

    written = {path.stem: path.read_text() for path in (tmp_path / "data").iterdir()}
    assert sorted(written) == sorted(data.MAKERS)
    assert written["pd_recall"].count("\n") == 200
    assert re.match(r'\{"prompt": "', written["pd_recall"])
