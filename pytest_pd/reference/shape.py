"""Arithmetic of a model's shape: how many tokens and bytes a hand-over must move.

Pure, and free of numpy: suites compute from here what the system under test then
has to show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DTYPE_BYTES = {"float16": 2, "half": 2, "bfloat16": 2, "float32": 4, "float": 4}
"""Names of ``--dtype`` to bytes of one KV element."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What decides the size of a KV cache.

    Attributes:
        layers: Transformer layers.
        heads: Query heads.
        kv_heads: Key and value heads; divides `heads`.
        head_dim: Elements of one head.
        itemsize_bytes: Bytes of one stored element.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    itemsize_bytes: int

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], *, dtype: str = "auto"
    ) -> ModelShape:
        """Read a Hugging Face ``config.json``.

        Args:
            config: The parsed file.
            dtype: Value of ``--dtype``; ``auto`` takes the checkpoint's own.

        Raises:
            KeyError: a needed key is absent, or the type is not in `DTYPE_BYTES`.
        """
        heads = int(config["num_attention_heads"])
        return cls(
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            itemsize_bytes=DTYPE_BYTES[resolve_dtype(config, dtype)],
        )

    @property
    def bytes_per_token(self) -> int:
        """Bytes of K and V of one token over all layers."""
        return self.layers * 2 * self.kv_heads * self.head_dim * self.itemsize_bytes

    def bytes_per_block(self, block_size: int) -> int:
        """Bytes of one block of `block_size` tokens over all layers."""
        return self.bytes_per_token * block_size


def resolve_dtype(config: Mapping[str, Any], dtype: str) -> str:
    """Return the type that ``--dtype`` stands for; ``auto`` is the checkpoint's."""
    if dtype != "auto":
        return dtype
    return str(config.get("torch_dtype") or config.get("dtype") or "float32")


def whole_blocks(prompt_tokens: int, block_size: int) -> int:
    """Tokens of a prompt that lie in whole blocks, its last token left out.

    The last token is always computed, for its logits are the first output. This
    many tokens move through shared storage and are found by the prefix cache.
    """
    return (prompt_tokens - 1) // block_size * block_size


def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that hold `tokens` tokens, the last one perhaps in part."""
    return -(-tokens // block_size)


def external_tokens(
    style: str, prompt_tokens: int, block_size: int, *, cached_tokens: int = 0
) -> int:
    """Prompt tokens that the decode engine must report as transferred.

    Args:
        style: ``shared_storage`` moves whole blocks; ``pull`` the whole prompt.
        prompt_tokens: Tokens of the prompt, the leading ``<s>`` counted.
        block_size: Tokens of one block.
        cached_tokens: Tokens that the decode engine already had.
    """
    whole = (
        prompt_tokens if style == "pull" else whole_blocks(prompt_tokens, block_size)
    )
    return max(whole - cached_tokens, 0)


def transferred_bytes(
    shape: ModelShape, prompt_tokens: int, block_size: int, *, cached_tokens: int = 0
) -> int:
    """Bytes that a pull of one prompt moves: whole blocks, padding included."""
    blocks = blocks_for(prompt_tokens, block_size) - cached_tokens // block_size
    return max(blocks, 0) * shape.bytes_per_block(block_size)
