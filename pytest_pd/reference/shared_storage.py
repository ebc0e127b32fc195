"""Hand-over through files: one folder per prompt, one file per layer, as vLLM does.

Unlike vLLM's ``ExampleConnector``, both sides name the folder by the same whole
blocks, so a prompt of ``len % block_size == 1`` is found too; the folder appears at
once with all its files; and a ``kv_consumer`` writes none.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pytest_pd.errors import SpecError
from pytest_pd.reference import tensorfile
from pytest_pd.reference.connector import KvTransferConfig, Seat, Transfer
from pytest_pd.reference.kvpool import Stored, storage_dtype
from pytest_pd.reference.request import Request
from pytest_pd.reference.shape import whole_blocks
from pytest_pd.reference.wire import TransferError

_log = logging.getLogger("vllm.example_connector")


class SharedStorageConnector:
    """Saves whole blocks of computed prompts to a folder and loads them from it."""

    cache_source = "external_unspecified"
    lease_s = 0.0

    def __init__(self, config: KvTransferConfig, seat: Seat) -> None:
        self.config = config
        self._seat = seat
        root = config.extra.get("shared_storage_path", "/tmp")
        self._root = Path(str(root))
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise SpecError(
                f"The KV folder cannot be made: {exc}.",
                hint="set kv_connector_extra_config.shared_storage_path",
                where=self._root,
            ) from exc
        _log.info("Shared storage path is %s", self._root)

    def match(self, request: Request, local_tokens: int) -> int:
        """Return the tokens of the prompt's folder that are not here yet."""
        whole = whole_blocks(request.prompt_tokens, self._seat.block_size)
        if not self.config.consumes or whole <= local_tokens:
            return 0
        if not self._folder(request.prompt[:whole]).is_dir():
            return 0
        _log.info("External Cache Hit!")
        return whole - local_tokens

    def load(
        self, request: Request, blocks: Sequence[int], local_tokens: int
    ) -> Transfer:
        """Read all layers of the prompt's folder."""
        started = time.perf_counter()
        whole = whole_blocks(request.prompt_tokens, self._seat.block_size)
        folder = self._folder(request.prompt[:whole])
        pages = self._read(folder, whole)[:, :, local_tokens // self._seat.block_size :]
        self._seat.mover.receive(blocks[: pages.shape[2]], pages)
        tokens = whole - local_tokens
        _log.info("Inject KV cache of %d tokens to the paged memory", tokens)
        elapsed = time.perf_counter() - started
        return Transfer(tokens, pages.nbytes, len(pages), elapsed)

    def save(self, request: Request) -> None:
        """Write the prompt's whole blocks, unless they are there already."""
        size = self._seat.block_size
        whole = whole_blocks(request.prompt_tokens, size)
        folder = self._folder(request.prompt[:whole])
        if not self.config.produces or not whole or folder.is_dir():
            return
        with suppress(TransferError):
            self._write(folder, self._seat.mover.send(request.blocks[: whole // size]))

    def hand_on(self, request: Request) -> Mapping[str, Any] | None:
        """Nothing: the files are the hand-over."""
        return None

    def decline(self, request: Request) -> None:
        """Nothing: nobody waits."""

    def close(self) -> None:
        """Nothing: nothing listens."""

    def _folder(self, tokens: Sequence[int]) -> Path:
        key = np.asarray(tokens, np.int64).tobytes()
        return self._root / hashlib.md5(key, usedforsecurity=False).hexdigest()

    def _write(self, folder: Path, pages: Stored) -> None:
        """Write pages to a folder beside and rename it: whole, or not there."""
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=self._root))
        for layer, page in enumerate(pages):
            flat = page.transpose(0, 1, 3, 2, 4)
            flat = flat.reshape(2, -1, *flat.shape[3:])
            blob = tensorfile.encode({"kv_cache": flat}, bf16=True)
            (draft / _file_name(layer)).write_bytes(blob)
        try:
            draft.rename(folder)
        except OSError:
            # Another engine wrote the same prompt in the meantime: the same bytes.
            shutil.rmtree(draft, ignore_errors=True)

    def _read(self, folder: Path, tokens: int) -> Stored:
        shape = self._seat.mover.pool.shape
        size = self._seat.block_size
        layers = []
        try:
            for layer in range(shape.layers):
                flat = tensorfile.read(folder / _file_name(layer))["kv_cache"]
                split = flat.reshape(2, -1, size, shape.kv_heads, shape.head_dim)
                layers.append(split.transpose(0, 1, 3, 2, 4))
        except (OSError, ValueError, KeyError) as exc:
            raise TransferError(
                f"KV of a prompt cannot be read: {exc}.", where=folder
            ) from exc
        pages = np.stack(layers)
        kept = storage_dtype(self._seat.mover.pool.dtype)
        if pages.shape[2] * size != tokens or pages.dtype != kept:
            raise TransferError(
                f"KV of a prompt has {pages.shape[2] * size} tokens of {pages.dtype}, "
                f"not {tokens} of {kept}.",
                where=folder,
            )
        return pages


def _file_name(layer: int) -> str:
    return f"model.layers.{layer}.self_attn.attn.safetensors"


def leave_old_kv(config: KvTransferConfig) -> None:
    """Commit the fault ``old_kv``: a file of yesterday lies in the KV folder."""
    if not config.extra.get("shared_storage_path"):
        return
    left = Path(str(config.extra["shared_storage_path"])) / "of-an-earlier-run"
    left.mkdir(parents=True, exist_ok=True)
    file = left / "layer_0.safetensors"
    file.write_bytes(b"\0" * 64)
    yesterday_s = time.time() - 86400.0
    os.utime(file, (yesterday_s, yesterday_s))
    os.utime(left, (yesterday_s, yesterday_s))
