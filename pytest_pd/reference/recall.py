"""Build the recall model: a Llama whose every answer is a look-up in its prompt.

Constructed, not trained. A symbol is eight bits. Layer 0 attends to the previous
token and carries its bits along, four per head. Each head of layers 1 to 4 matches a
token's own bits with the "previous" bits of all tokens before it and copies one bit
of the token it found, so eight heads copy the successor. The output is right only if
the KV of the whole prompt is right in every head of the last four layers: a wrong,
stale or empty block in any of them becomes wrong text.

What it cannot see: damage in layer 0 (its old KV is read by the next token only), and
two whole blocks that changed places, for the match does not look at positions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_pd.reference import tensorfile

Matrix = NDArray[np.float64]

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "?", ",")
BITS = 8
HIDDEN, HEAD_DIM, HEADS, LAYERS, MLP = 128, 64, 2, 5, 64
VOCAB = len(SPECIAL) + 2**BITS
ROPE_THETA = 1e6
MAX_TOKENS = 4096

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %} {{ message['content'] }}{% endfor %}"
)
"""The contents one after the other, so that a chat turn can be a recall prompt."""

# Places in the residual stream: a constant, the mark of punctuation, the pairs
# (bit is 0, bit is 1) of the token's own, the previous and the copied symbol.
_CONST, _MARK, _OWN, _PREVIOUS, _COPIED, _PAD = 0, 1, 2, 32, 64, 127
_ENERGY = 1 + 4 * BITS
"""Squared norm of every embedding."""


def make_weights() -> dict[str, NDArray[np.float16]]:
    """Return the weights by their Hugging Face names; linear maps are (out, in)."""
    embedding, head = _vocabulary()
    tensors: dict[str, Matrix] = {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": head,
        "model.norm.weight": np.ones(HIDDEN),
    }
    for layer in range(LAYERS):
        attention = _carry_previous() if layer == 0 else _match_and_copy(layer)
        prefix = f"model.layers.{layer}."
        for name, matrix in {**attention, **_pass_through()}.items():
            tensors[f"{prefix}{name}.weight"] = matrix
    return {name: value.astype(np.float16) for name, value in tensors.items()}


def _vocabulary() -> tuple[Matrix, Matrix]:
    """Return the embedding and the output head, both (vocabulary, hidden)."""
    embedding, head = np.zeros((VOCAB, HIDDEN)), np.zeros((VOCAB, HIDDEN))
    embedding[:, _CONST] = 1
    embedding[: len(SPECIAL), _MARK] = 2
    # All tokens get one norm, or RMSNorm would scale the bits by kind of token.
    embedding[: len(SPECIAL), _PAD] = np.sqrt(_ENERGY - 5)
    for symbol in range(2**BITS):
        row = len(SPECIAL) + symbol
        for place in range(BITS):
            bit = symbol >> place & 1
            embedding[row, _OWN + 2 * place + bit] = 2
            head[row, _COPIED + 2 * place + bit] = 6
    return embedding, head


def _frequencies() -> NDArray[np.float64]:
    half = HEAD_DIM // 2
    return ROPE_THETA ** (-np.arange(half) / half)


def _rms(energy: float) -> float:
    return float(np.sqrt(energy / HIDDEN))


def _empty() -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Return q, k, v as (heads * head_dim, hidden) and o as (hidden, the same)."""
    wide = HEADS * HEAD_DIM
    q, k, v = (np.zeros((wide, HIDDEN)) for _ in range(3))
    return q, k, v, np.zeros((HIDDEN, wide))


def _named(q: Matrix, k: Matrix, v: Matrix, o: Matrix) -> dict[str, Matrix]:
    return {f"self_attn.{n}_proj": m for n, m in zip("qkvo", (q, k, v, o), strict=True)}


def _carry_previous() -> dict[str, Matrix]:
    """Layer 0: attend to the token before and write half of its bits per head."""
    q, k, v, o = _empty()
    half, turn, scale = HEAD_DIM // 2, _frequencies(), _rms(_ENERGY)
    # With q turned back by one position, the score of a key at distance 1 is 16
    # above the mean over far keys.
    gain = np.sqrt(16 * np.sqrt(HEAD_DIM) / (1 - np.cos(turn)).sum()) * scale
    for h in range(HEADS):
        row = h * HEAD_DIM
        q[row : row + half, _CONST] = gain * np.cos(turn)
        q[row + half : row + HEAD_DIM, _CONST] = -gain * np.sin(turn)
        k[row : row + half, _CONST] = gain
        for t in range(BITS):
            v[row + t, _OWN + BITS * h + t] = 1
            o[_PREVIOUS + BITS * h + t, row + t] = scale
        # After punctuation there are no bits to carry: the same energy goes here.
        v[row + BITS, _PAD] = np.sqrt(4 * BITS / 2 / (_ENERGY - 5))
        o[_PAD - 1 - h, row + BITS] = scale
    return _named(q, k, v, o)


def _match_and_copy(layer: int) -> dict[str, Matrix]:
    """Layers 1 to 4: find the token after the own symbol, copy one bit per head."""
    q, k, v, o = _empty()
    scale = _rms(2 * _ENERGY - 1 + 8 * (layer - 1))
    slots = _still_slots()
    gain = np.sqrt(14 * np.sqrt(HEAD_DIM)) / 2 * scale
    for h in range(HEADS):
        row, place = h * HEAD_DIM, 2 * (layer - 1) + h
        for t in range(2 * BITS):
            q[row + slots[t], _OWN + t] = gain
            k[row + slots[t], _PREVIOUS + t] = gain
        # Punctuation also follows symbols and must never be found.
        q[row + slots[2 * BITS], _CONST] = 40
        k[row + slots[2 * BITS], _MARK] = -40
        for t in range(2):
            v[row + t, _OWN + 2 * place + t] = 1
            o[_COPIED + 2 * place + t, row + t] = scale
    return _named(q, k, v, o)


def _still_slots() -> list[int]:
    """Head dimensions that RoPE hardly turns over the whole context."""
    turn = _frequencies()
    still = [i for i in range(HEAD_DIM // 2) if turn[i] * MAX_TOKENS < 0.5]
    return still + [i + HEAD_DIM // 2 for i in still]


def _pass_through() -> dict[str, Matrix]:
    """The rest of a layer: norms of one, an MLP that adds nothing."""
    return {
        "input_layernorm": np.ones(HIDDEN),
        "post_attention_layernorm": np.ones(HIDDEN),
        "mlp.gate_proj": np.zeros((MLP, HIDDEN)),
        "mlp.up_proj": np.zeros((MLP, HIDDEN)),
        "mlp.down_proj": np.zeros((HIDDEN, MLP)),
    }


def make_config() -> dict[str, Any]:
    """Return ``config.json``."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_TOKENS,
        "rms_norm_eps": 1e-6,
        "rope_theta": ROPE_THETA,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": SPECIAL.index("<s>"),
        "eos_token_id": SPECIAL.index("</s>"),
        "pad_token_id": SPECIAL.index("<pad>"),
        "torch_dtype": "float16",
    }


def make_tokenizer() -> dict[str, Any]:
    """Return ``tokenizer.json``: one token per word, ``<s>`` put in front."""
    words = [*SPECIAL, *(f"w{symbol:03d}" for symbol in range(2**BITS))]
    vocab = {word: index for index, word in enumerate(words)}
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    first, second = ({"Sequence": {"id": n, "type_id": i}} for i, n in enumerate("AB"))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_special(word, vocab[word]) for word in SPECIAL[:4]],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "decoder": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, first],
            "pair": [first, second],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    }


def _special(word: str, index: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": word, **flags, "special": True}


def make_tokenizer_config() -> dict[str, Any]:
    """Return ``tokenizer_config.json``, chat template included."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "model_max_length": MAX_TOKENS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def write(folder: Path) -> None:
    """Write the model to `folder`; the bytes are the same on every run."""
    folder.mkdir(parents=True, exist_ok=True)
    blob = tensorfile.encode(make_weights())
    (folder / "model.safetensors").write_bytes(blob)
    _write_json(folder / "config.json", make_config())
    _write_json(folder / "tokenizer.json", make_tokenizer())
    _write_json(folder / "tokenizer_config.json", make_tokenizer_config())


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
