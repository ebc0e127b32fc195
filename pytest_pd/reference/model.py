"""The transformer itself: a Llama forward pass in numpy over paged KV.

It computes in float64 and rounds the logits to steps of 2**-20. So the answer does not
depend on who shares the batch or on how a prompt was cut into chunks: greedy output is
equal token by token, which is the determinism class ``exact``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_pd.errors import SpecError
from pytest_pd.reference import tensorfile
from pytest_pd.reference.kvpool import KvPool
from pytest_pd.reference.shape import ModelShape

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_LOGIT_STEPS = 2.0**20
_QUERY_TILE = 128
"""Prompt rows of which scores are held at once; bounds memory on long prompts."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """New tokens of one request.

    Attributes:
        tokens: Their ids.
        start: Position of the first one.
        blocks: Blocks of the request, enough for ``start + len(tokens)`` tokens.
        every_row: Return logits after every token, not only after the last.
    """

    tokens: Sequence[int]
    start: int
    blocks: Ints
    every_row: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer as (in, out); `mlp` is None where it adds nothing."""

    input_norm: Floats
    qkv: Floats
    out: Floats
    mlp_norm: Floats
    mlp: tuple[Floats, Floats, Floats] | None


class Model:
    """A loaded model; `forward` is its only act and keeps no state of its own."""

    def __init__(
        self, config: Mapping[str, Any], weights: Mapping[str, Floats]
    ) -> None:
        self.shape = ModelShape.from_config(config)
        self.max_positions = int(config["max_position_embeddings"])
        self.vocab_size = int(config["vocab_size"])
        self._epsilon = float(config["rms_norm_eps"])
        self._embedding = weights["model.embed_tokens.weight"]
        self._norm = weights["model.norm.weight"]
        tied = config.get("tie_word_embeddings")
        head = self._embedding if tied else weights["lm_head.weight"]
        self._head = np.ascontiguousarray(head.T)
        self._layers = [_read_layer(weights, i) for i in range(self.shape.layers)]
        self._cos, self._sin = _rotations(
            self.max_positions, self.shape.head_dim, float(config["rope_theta"])
        )

    @classmethod
    def load(cls, folder: Path) -> Model:
        """Read ``config.json`` and ``model.safetensors``.

        Raises:
            SpecError: the folder holds no such model, or one of another architecture.
        """
        config = read_config(folder)
        tensors = tensorfile.read(folder / "model.safetensors")
        return cls(config, {name: t.astype(np.float64) for name, t in tensors.items()})

    def forward(self, chunks: Sequence[Chunk], pool: KvPool) -> list[Floats]:
        """Run new tokens of several requests and write their KV to `pool`.

        Returns:
            Logits per chunk, shape (rows, vocabulary): one row after the last token,
            or one after every token where the chunk asks for it.
        """
        positions = np.concatenate(
            [np.arange(c.start, c.start + len(c.tokens)) for c in chunks]
        )
        blocks = np.concatenate([c.blocks[_span(c) // pool.block_size] for c in chunks])
        offsets = positions % pool.block_size
        turn = self._cos[positions][:, None], self._sin[positions][:, None]
        state = self._embedding[[token for c in chunks for token in c.tokens]]
        for index, layer in enumerate(self._layers):
            query, key, value = self._project(layer, state, turn)
            pool.write(index, 0, blocks, offsets, key)
            pool.write(index, 1, blocks, offsets, value)
            found = _attend_all(chunks, query, pool, index)
            state = state + found @ layer.out
            if layer.mlp is not None:
                state = state + self._feed(layer, state)
        return self._logits(chunks, state)

    def _project(
        self, layer: Layer, state: Floats, turn: tuple[Floats, Floats]
    ) -> tuple[Floats, Floats, Floats]:
        """Return q (rows, heads, dim) and k, v (rows, kv_heads, dim), turned."""
        shape = self.shape
        mixed = self._normed(state, layer.input_norm) @ layer.qkv
        parts = mixed.reshape(len(state), -1, shape.head_dim)
        turned = _rotate(parts[:, : shape.heads + shape.kv_heads], turn)
        value = parts[:, shape.heads + shape.kv_heads :]
        return turned[:, : shape.heads], turned[:, shape.heads :], value

    def _normed(self, state: Floats, weight: Floats) -> Floats:
        energy = np.einsum("ij,ij->i", state, state) / state.shape[1]
        scaled: Floats = state / np.sqrt(energy + self._epsilon)[:, None] * weight
        return scaled

    def _feed(self, layer: Layer, state: Floats) -> Floats:
        assert layer.mlp is not None
        gate_weight, up_weight, down_weight = layer.mlp
        normed = self._normed(state, layer.mlp_norm)
        gate = normed @ gate_weight
        fed: Floats = (gate / (1 + np.exp(-gate)) * (normed @ up_weight)) @ down_weight
        return fed

    def _logits(self, chunks: Sequence[Chunk], state: Floats) -> list[Floats]:
        ends = np.cumsum([len(c.tokens) for c in chunks])
        firsts = [
            end - (len(c.tokens) if c.every_row else 1)
            for c, end in zip(chunks, ends, strict=True)
        ]
        rows = np.concatenate(
            [np.arange(f, e) for f, e in zip(firsts, ends, strict=True)]
        )
        logits = self._normed(state[rows], self._norm) @ self._head
        rounded = np.rint(logits * _LOGIT_STEPS) / _LOGIT_STEPS
        counts = [e - f for f, e in zip(firsts, ends, strict=True)]
        return np.split(rounded, np.cumsum(counts)[:-1])


def read_config(folder: Path) -> dict[str, Any]:
    """Return the parsed ``config.json`` of a Llama model.

    Raises:
        SpecError: there is none, or it names another architecture.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise SpecError(
            f"{str(folder)!r} holds no model: config.json cannot be read ({exc}).",
            hint="give a Hugging Face folder, for example fixtures/models/tiny",
            where=path,
        ) from exc
    names = config.get("architectures") or ["none"]
    if names != ["LlamaForCausalLM"]:
        raise SpecError(
            f"The architecture {names[0]!r} is not one the reference engine computes.",
            hint="serve a LlamaForCausalLM, or rehearse with --rehearse-model",
            where=path,
        )
    return config


def _read_layer(weights: Mapping[str, Floats], index: int) -> Layer:
    prefix = f"model.layers.{index}."

    def turned(name: str) -> Floats:
        return np.ascontiguousarray(weights[f"{prefix}{name}.weight"].T)

    qkv = [turned(f"self_attn.{name}_proj") for name in "qkv"]
    gate, up, down = (turned(f"mlp.{name}_proj") for name in ("gate", "up", "down"))
    return Layer(
        input_norm=weights[f"{prefix}input_layernorm.weight"],
        qkv=np.ascontiguousarray(np.concatenate(qkv, axis=1)),
        out=turned("self_attn.o_proj"),
        mlp_norm=weights[f"{prefix}post_attention_layernorm.weight"],
        mlp=(gate, up, down) if down.any() else None,
    )


def _rotations(positions: int, dim: int, theta: float) -> tuple[Floats, Floats]:
    """Return cosine and sine of the RoPE angles, (positions, dim / 2) each."""
    half = dim // 2
    angles = np.outer(np.arange(positions), theta ** (-np.arange(half) / half))
    return np.cos(angles), np.sin(angles)


def _rotate(heads: Floats, turn: tuple[Floats, Floats]) -> Floats:
    """Turn (rows, heads, dim) by RoPE in the half-split form of Hugging Face."""
    cos, sin = turn
    half = heads.shape[-1] // 2
    left, right = heads[..., :half], heads[..., half:]
    parts = (left * cos - right * sin, right * cos + left * sin)
    return np.concatenate(parts, axis=-1)


def _span(chunk: Chunk) -> Ints:
    return np.arange(chunk.start, chunk.start + len(chunk.tokens))


def _attend_all(
    chunks: Sequence[Chunk], query: Floats, pool: KvPool, layer: int
) -> Floats:
    """Return what every row found, (rows, heads * dim), each in its own request."""
    found = np.empty((len(query), query.shape[1] * query.shape[2]))
    row = 0
    for chunk in chunks:
        count = len(chunk.tokens)
        total = chunk.start + count
        blocks = chunk.blocks[: -(-total // pool.block_size)]
        keys = pool.read(layer, 0, blocks, total)
        values = pool.read(layer, 1, blocks, total)
        for first in range(0, count, _QUERY_TILE):
            last = min(first + _QUERY_TILE, count)
            seen = chunk.start + last
            found[row + first : row + last] = _attend(
                query[row + first : row + last],
                keys[:, :seen],
                values[:, :seen],
                chunk.start + first,
            )
        row += count
    return found


def _attend(query: Floats, keys: Floats, values: Floats, start: int) -> Floats:
    """Causal attention of rows at positions from `start` on; (rows, heads * dim)."""
    rows, heads, dim = query.shape
    kv_heads, total, _ = keys.shape
    split = query.reshape(rows, kv_heads, heads // kv_heads, dim)
    grouped = split.transpose(1, 2, 0, 3).reshape(kv_heads, -1, dim)
    scores = grouped @ keys.transpose(0, 2, 1) / np.sqrt(dim)
    if rows > 1:
        hidden = np.arange(total) > start + np.arange(rows)[:, None]
        by_row = scores.reshape(kv_heads, -1, rows, total)
        by_row[:, :, hidden] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    found = (weights @ values).reshape(heads, rows, dim)
    joined: Floats = found.transpose(1, 0, 2).reshape(rows, heads * dim)
    return joined
