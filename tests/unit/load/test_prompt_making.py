"""Prompts are seeded, exact in length, and alike only where that is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from pytest_pd.errors import MeasurementError, SpecError
from pytest_pd.load.asked import EngineTokenizer
from pytest_pd.load.mooncake import read_trace, replay_prompts
from pytest_pd.load.prompts import Lengths, PromptSource
from pytest_pd.load.tokenizer import (
    HuggingFace,
    TokenIds,
    find_tokenizer,
)
from pytest_pd.load.words import COMMON_WORDS, single_token_words
from pytest_pd.load.workload import conversations, prompts_for, sweep
from pytest_pd.spec.workload import WorkloadSpec
from tests.services import require

TINY = Path(__file__).parents[3] / "fixtures/models/tiny"


@pytest.fixture
def source():
    return PromptSource(find_tokenizer(TINY), "salt")


@pytest.mark.parametrize("tokens", [8, 48, 700])
def test_prompts_have_exactly_the_tokens_asked_for(source, tokens):
    for prompt in source.take(20, Lengths(input_tokens=tokens)):
        assert prompt.input_tokens == tokens
        assert source.tokenizer.count(prompt.text) == tokens


@pytest.fixture
def library():
    """The `tokenizers` package."""
    try:
        import tokenizers
    except ImportError:
        require("tokenizers", "pip install tokenizers")
    return tokenizers


def test_tiny_model_agrees_with_the_tokenizers_library(source, library):
    encoder = library.Tokenizer.from_file(str(TINY / "tokenizer.json"))

    for prompt in source.take(10, Lengths(input_tokens=40)):
        assert len(encoder.encode(prompt.text).ids) == 40


def test_prompts_are_exact_for_byte_pairs_too(library, tmp_path):
    """A byte-pair tokenizer as most models have, trained here on our words."""
    encoder = library.Tokenizer(library.models.BPE())
    encoder.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<s>"],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    encoder.train_from_iterator([" ".join(COMMON_WORDS)] * 50, trainer)
    encoder.post_processor = library.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    encoder.save(str(tmp_path / "tokenizer.json"))

    tokenizer = find_tokenizer(tmp_path)
    lengths = Lengths(input_tokens=64, shared_tokens=32)
    prompts = PromptSource(tokenizer, "s").take(100, lengths)

    assert isinstance(tokenizer, HuggingFace)
    assert {len(encoder.encode(p.text).ids) for p in prompts} == {64}


def test_recall_prompts_begin_with_a_comma(source):
    assert all(p.text.startswith(", ") for p in source.take(3, Lengths()))


def test_no_two_prompts_begin_alike(source):
    """Not within a call, not between calls: a prefix cache finds nothing."""
    lengths = Lengths(input_tokens=16)
    prompts = source.take(600, lengths) + source.take(600, lengths)

    beginnings = {tuple(p.text.split()[:3]) for p in prompts}

    assert len(beginnings) == 1200


def test_the_same_salt_makes_the_same_prompts_and_another_others():
    tokenizer = find_tokenizer(TINY)
    lengths = Lengths(input_tokens=16)
    one, same, other = (
        PromptSource(tokenizer, salt).take(50, lengths) for salt in ("a", "a", "b")
    )

    assert one == same
    assert not {p.text for p in one} & {p.text for p in other}


def test_shared_tokens_are_shared_within_a_group_and_only_those(source):
    lengths = Lengths(input_tokens=32, shared_tokens=16, groups=2)

    prompts = [p.text.split() for p in source.take(6, lengths)]

    words = 16 - 1  # the beginning-of-text token is no word
    assert prompts[0][:words] == prompts[2][:words] == prompts[4][:words]
    assert prompts[0][:words] != prompts[1][:words]
    assert len({tuple(p[words : words + 3]) for p in prompts}) == 6


def test_length_ratio_spreads_lengths_up_to_the_whole(source):
    lengths = Lengths(input_tokens=100, output_tokens=50, ratio=0.5)

    prompts = source.take(200, lengths)

    sizes = [p.input_tokens for p in prompts]
    assert min(sizes) >= 50
    assert max(sizes) <= 100
    assert len(set(sizes)) > 20
    assert all(source.tokenizer.count(p.text) == p.input_tokens for p in prompts)


def test_prompts_too_short_to_differ_are_refused(source):
    with pytest.raises(SpecError, match="no room to differ"):
        source.take(5, Lengths(input_tokens=3))


@pytest.mark.parametrize(
    "fields",
    [
        {"ratio": 0.0},
        {"input_tokens": 0},
        {"input_tokens": 10, "shared_tokens": 10},
        {"input_tokens": 10, "ratio": 0.5, "shared_tokens": 6},
    ],
)
def test_lengths_that_cannot_be_are_refused(fields):
    with pytest.raises(SpecError):
        Lengths(**fields)


def test_token_id_prompts_need_no_tokenizer():
    source = PromptSource(TokenIds(first=100, last=200), "x")

    prompts = source.take(10, Lengths(input_tokens=12))

    assert all(len(p.token_ids) == p.input_tokens == 12 for p in prompts)
    assert all(100 <= k < 200 for p in prompts for k in p.token_ids)
    assert len({p.token_ids[:3] for p in prompts}) == 10


def test_engine_is_asked_where_there_are_no_files(monkeypatch):
    """An engine whose tokenizer makes one token of each word, and adds two."""
    asked = []

    def post(url, **options):
        asked.append(options["json"]["prompt"])
        count = len(options["json"]["prompt"].split()) + 2
        return httpx.Response(
            200, json={"count": count}, request=httpx.Request("POST", url)
        )

    monkeypatch.setattr(httpx, "post", post)

    tokenizer = find_tokenizer(url="http://engine", model="m")

    assert isinstance(tokenizer, EngineTokenizer)
    assert tokenizer.count("a b c") == 5
    assert len(tokenizer.words) > 100
    assert len(asked) < 6, "words are asked for together"


def test_engine_that_knows_no_word_is_given_ids(monkeypatch):
    """A small vocabulary makes the unknown token of each word: counts agree."""

    def post(url, **options):
        request = httpx.Request("POST", url)
        prompt = options["json"]["prompt"]
        if not url.endswith("/tokenize"):
            return httpx.Response(200, json={}, request=request)
        ids = [1, *(3 for _ in prompt.split())]
        found = {"count": len(ids), "tokens": ids}
        return httpx.Response(200, json=found, request=request)

    monkeypatch.setattr(httpx, "post", post)

    assert find_tokenizer(url="http://engine", model="m").name == "token ids"


def test_words_of_several_tokens_are_sorted_out():
    """A tokenizer that cuts every word longer than five letters in two."""

    def count(text):
        return sum(1 + (len(word) > 5) for word in text.split())

    words = single_token_words(count)

    assert " house" in words
    assert " children" not in words


def test_token_ids_are_the_last_resort(unused_port):
    found = find_tokenizer(url=f"http://127.0.0.1:{unused_port}", model="m")

    assert found.name == "token ids"
    with pytest.raises(MeasurementError):
        found.count("a")


class Server:
    """Stands for a server without ``/tokenize``; a token a word, and three more."""

    def __init__(self, monkeypatch, vocabulary=10**6):
        self.bodies = []
        self.vocabulary = vocabulary
        monkeypatch.setattr(httpx, "post", self.post)

    def post(self, url, **options):
        body = options["json"]
        request = httpx.Request("POST", url)
        if url.endswith("/tokenize"):
            return httpx.Response(404, request=request)
        self.bodies.append(body)
        prompt = body.get("prompt") or body["messages"][0]["content"]
        if isinstance(prompt, list) and max(prompt) >= self.vocabulary:
            return httpx.Response(400, request=request)
        usage = {"prompt_tokens": len(prompt.split()) + 3} if self.counts else None
        return httpx.Response(200, json={"usage": usage}, request=request)

    counts = True


def test_chat_is_never_asked_in_token_ids(monkeypatch):
    """Messages are text, so the answers' usage counts their tokens."""
    server = Server(monkeypatch)

    tokenizer = find_tokenizer(url="http://engine", model="m", is_chat=True)
    (prompt,) = PromptSource(tokenizer, "x").take(1, Lengths(input_tokens=20))

    assert tokenizer.name == "usage in the server's answers"
    assert len(prompt.text.split()) + 3 == prompt.input_tokens == 20
    assert all(body["messages"][0]["content"] for body in server.bodies)
    assert len(server.bodies) < 6, "words are asked for together"


def test_chat_with_a_server_that_never_tells_lengths_is_refused(monkeypatch):
    server = Server(monkeypatch)
    server.counts = False
    with pytest.raises(MeasurementError, match="does not say how long"):
        find_tokenizer(url="http://engine", model="m", is_chat=True)


@pytest.mark.parametrize(("vocabulary", "last"), [(32_000, 9000), (4096, 2200)])
def test_token_ids_stay_in_the_vocabulary(monkeypatch, vocabulary, last):
    server = Server(monkeypatch, vocabulary)
    server.counts = False
    tokenizer = find_tokenizer(url="http://engine", model="m")

    assert (tokenizer.first, tokenizer.last) == (last // 9, last)


@pytest.mark.parametrize(
    "fields", [{"endpoint": "chat"}, {"kind": "multi_turn", "turns": 2}]
)
def test_what_needs_text_is_not_sent_as_token_ids(fields):
    spec = WorkloadSpec(name="w", input_tokens=9, concurrency=[1], requests=4, **fields)
    with pytest.raises(SpecError, match="needs prompts that are text"):
        prompts_for(spec, next(iter(sweep(spec))), PromptSource(TokenIds(), "x"))


def test_absent_model_directory_is_an_error(tmp_path):
    with pytest.raises(SpecError, match="does not exist"):
        find_tokenizer(tmp_path / "nowhere")


def entry(timestamp, size, blocks):
    return json.dumps(
        {
            "timestamp": timestamp,
            "input_length": size,
            "output_length": 7,
            "hash_ids": blocks,
        }
    )


def test_trace_replays_times_lengths_and_shared_blocks(source, tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text(f"{entry(1000, 40, [1, 2])}\n{entry(3000, 30, [1, 9])}\n")

    prompts = replay_prompts(read_trace(path), source, block_tokens=16, speed=2.0)

    assert [p.at_s for p in prompts] == [0.5, 1.5]
    assert [p.input_tokens for p in prompts] == [40, 30]
    assert [p.output_tokens for p in prompts] == [7, 7]
    first, second = (p.text.split() for p in prompts)
    assert first[:17] == second[:17], "the comma and one block of 16"
    assert first[17:20] != second[17:20]
    assert all(source.tokenizer.count(p.text) == p.input_tokens for p in prompts)


def test_another_replay_of_a_trace_shares_no_block_with_the_first(source, tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text(f"{entry(0, 40, [1])}\n{entry(0, 40, [1])}\n{entry(0, 40, [])}\n")
    entries = read_trace(path)

    first, again = (
        [p.text.split()[1:] for p in replay_prompts(entries, source, block_tokens=16)]
        for _ in range(2)
    )

    blocks = [
        {tuple(words[at : at + 16]) for words in prompts for at in (0, 16)}
        for prompts in (first, again)
    ]
    assert again[0][:16] == again[1][:16], "shared as the trace says"
    assert not blocks[0] & blocks[1]


def test_another_trace_than_named_is_refused(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text(entry(0, 5, []))

    with pytest.raises(SpecError, match="SHA-256"):
        read_trace(path, sha256="0" * 64)


def test_wrong_line_of_a_trace_is_named(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text(f'{entry(0, 5, [])}\n{{"timestamp": 3}}\n')

    with pytest.raises(SpecError, match="KeyError") as caught:
        read_trace(path)

    assert caught.value.where == f"{path}:2"


def test_conversations_chain_turns_and_leave_warmup_alone(source):
    prompts = source.take(9, Lengths(input_tokens=12))

    chained = conversations(prompts, turns=4, think_s=0.5, warmup=1)

    assert [p.follows for p in chained] == [None, None, 1, 2, 3, None, 5, 6, 7]
    assert [p.session for p in chained] == [-1, 0, 0, 0, 0, 1, 1, 1, 1]
    assert {p.think_s for p in chained if p.follows is not None} == {0.5}


@pytest.mark.parametrize("text", ["", "[]", '{"model": 1}'])
def test_a_broken_tokenizer_is_told_with_its_file(tmp_path, text):
    (tmp_path / "tokenizer.json").write_text(text)

    with pytest.raises(SpecError, match=r"tokenizer\.json' is no tokenizer"):
        find_tokenizer(tmp_path)
