"""The forward pass: right against a plain one, and the same however it is cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pytest_pd.errors import SpecError
from pytest_pd.reference.kvpool import KvPool
from pytest_pd.reference.model import Chunk, Model, read_config
from pytest_pd.reference.prompts import make_recall
from pytest_pd.reference.tokenizer import Tokenizer

BLOCKS = 80


def make_pool(model: Model, *, dtype: str = "float32", block_size: int = 16) -> KvPool:
    return KvPool(model.shape, blocks=BLOCKS, block_size=block_size, dtype=dtype)


def scattered(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(BLOCKS)


def greedy(model: Model, prompt: list[int], count: int, dtype: str = "float16"):
    pool, blocks = make_pool(model, dtype=dtype), scattered()
    logits = model.forward([Chunk(prompt, 0, blocks)], pool)[0][-1]
    made: list[int] = []
    for step in range(count):
        made.append(int(logits.argmax()))
        chunk = Chunk(made[-1:], len(prompt) + step, blocks)
        logits = model.forward([chunk], pool)[0][-1]
    return made


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("length", [9, 15, 16, 17, 47, 48, 49, 255, 600])
def test_recall_is_exact(model: Model, tokenizer: Tokenizer, length: int, dtype: str):
    prompt = make_recall(f"{dtype}-{length}", chain=24, length_tokens=length)

    made = greedy(model, tokenizer.encode(prompt.text), 24, dtype)

    assert [tokenizer.words[token] for token in made] == prompt.expected


def plain_logits(weights: dict[str, np.ndarray], config: dict, tokens: list[int]):
    """A Llama without cache, blocks or batching, written for reading."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim, count = config["head_dim"], len(tokens)
    state = weights["model.embed_tokens.weight"][tokens]

    def normed(x, w):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"]) * w

    def turned(x):
        half = dim // 2
        angle = np.outer(
            np.arange(count), config["rope_theta"] ** (-np.arange(half) / half)
        )[:, None]
        left, right = x[..., :half], x[..., half:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], -1)

    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        x = normed(state, weights[name + "input_layernorm.weight"])
        q, k, v = (
            (x @ weights[f"{name}self_attn.{n}_proj.weight"].T).reshape(count, -1, dim)
            for n in "qkv"
        )
        q, k = turned(q), turned(k)
        found = np.zeros((count, heads, dim))
        for h in range(heads):
            g = h // (heads // kv_heads)
            for row in range(count):
                scores = k[: row + 1, g] @ q[row, h] / np.sqrt(dim)
                share = np.exp(scores - scores.max())
                found[row, h] = share @ v[: row + 1, g] / share.sum()
        state = (
            state
            + found.reshape(count, -1) @ weights[name + "self_attn.o_proj.weight"].T
        )
        x = normed(state, weights[name + "post_attention_layernorm.weight"])
        gate = x @ weights[name + "mlp.gate_proj.weight"].T
        up = x @ weights[name + "mlp.up_proj.weight"].T
        state = (
            state
            + (gate / (1 + np.exp(-gate)) * up)
            @ weights[name + "mlp.down_proj.weight"].T
        )
    return normed(state, weights["model.norm.weight"]) @ weights["lm_head.weight"].T


def random_llama() -> tuple[dict[str, np.ndarray], dict]:
    """Weights of a Llama with grouped heads and an MLP that does something."""
    draw = np.random.default_rng(5)
    hidden, heads, kv_heads, dim, mlp, vocab = 24, 6, 2, 8, 40, 31
    config = {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": dim,
        "hidden_size": hidden,
        "num_hidden_layers": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
        "max_position_embeddings": 64,
        "vocab_size": vocab,
        "torch_dtype": "float32",
    }
    shapes = {
        "model.embed_tokens.weight": (vocab, hidden),
        "lm_head.weight": (vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(2):
        name = f"model.layers.{layer}."
        shapes |= {
            name + "input_layernorm.weight": (hidden,),
            name + "post_attention_layernorm.weight": (hidden,),
            name + "self_attn.q_proj.weight": (heads * dim, hidden),
            name + "self_attn.k_proj.weight": (kv_heads * dim, hidden),
            name + "self_attn.v_proj.weight": (kv_heads * dim, hidden),
            name + "self_attn.o_proj.weight": (hidden, heads * dim),
            name + "mlp.gate_proj.weight": (mlp, hidden),
            name + "mlp.up_proj.weight": (mlp, hidden),
            name + "mlp.down_proj.weight": (hidden, mlp),
        }
    return {name: draw.normal(size=size) * 0.4 for name, size in shapes.items()}, config


def test_logits_are_those_of_a_plain_llama():
    weights, config = random_llama()
    model = Model(config, weights)
    tokens = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9]
    pool = KvPool(model.shape, blocks=8, block_size=4, dtype="float32")

    chunk = Chunk(tokens, 0, np.array([6, 1, 4, 2]), every_row=True)
    (found,) = model.forward([chunk], pool)

    assert np.allclose(found, plain_logits(weights, config, tokens), atol=1e-5)


def test_last_row_is_all_that_is_returned_unless_asked(model: Model):
    pool = make_pool(model)

    short, long = model.forward(
        [
            Chunk([1, 7, 8], 0, np.array([0])),
            Chunk([1, 7, 8], 0, np.array([1]), every_row=True),
        ],
        pool,
    )

    assert short.shape == (1, 262)
    assert long.shape == (3, 262)
    assert np.array_equal(short[0], long[-1])


@pytest.mark.parametrize("cut", [1, 5, 16, 17, 100, 129])
def test_a_prompt_in_chunks_gives_the_same_logits(
    model: Model, tokenizer: Tokenizer, cut: int
):
    tokens = tokenizer.encode(make_recall("chunks", length_tokens=230).text)
    blocks = scattered()
    whole = model.forward([Chunk(tokens, 0, blocks)], make_pool(model))[0]
    pool = make_pool(model)

    for first in range(0, len(tokens), cut):
        part = Chunk(tokens[first : first + cut], first, blocks)
        (logits,) = model.forward([part], pool)

    assert np.array_equal(logits, whole)


@pytest.mark.parametrize("others", [1, 3, 15])
def test_the_batch_does_not_change_an_answer(
    model: Model, tokenizer: Tokenizer, others: int
):
    tokens = tokenizer.encode(make_recall("batch", length_tokens=64).text)
    alone = model.forward([Chunk(tokens, 0, np.arange(4))], make_pool(model))[0]
    company = [
        Chunk(
            tokenizer.encode(make_recall(i, pairs=15).text), 0, 4 + 4 * i + np.arange(4)
        )
        for i in range(others)
    ]

    together = model.forward(
        [*company, Chunk(tokens, 0, np.arange(4))], make_pool(model)
    )

    assert np.array_equal(together[-1], alone)


def test_order_of_blocks_does_not_matter(model: Model, tokenizer: Tokenizer):
    tokens = tokenizer.encode(make_recall("order", length_tokens=100).text)

    one, other = (
        model.forward([Chunk(tokens, 0, scattered(seed))], make_pool(model))[0]
        for seed in (1, 2)
    )

    assert np.array_equal(one, other)


def test_a_folder_without_model_is_refused(tmp_path: Path):
    with pytest.raises(SpecError, match="holds no model"):
        read_config(tmp_path)


def test_another_architecture_is_refused(tmp_path: Path):
    content = {"architectures": ["DeepseekV3ForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(content))

    with pytest.raises(SpecError, match="DeepseekV3ForCausalLM"):
        read_config(tmp_path)
