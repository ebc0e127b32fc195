"""Hand-over by pull over TCP, with the ``kv_transfer_params`` of vLLM's NIXL connector.

The producer keeps the blocks of a prompt and says where they are; the consumer reads
whole blocks by their numbers and then says "done". As with NIXL the producer does not
ask whose blocks are read: wrong block ids give wrong KV, not an error.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pytest_pd.errors import SpecError
from pytest_pd.reference.connector import KvTransferConfig, Seat, Transfer
from pytest_pd.reference.kvpool import Stored, storage_dtype
from pytest_pd.reference.request import Request
from pytest_pd.reference.shape import blocks_for
from pytest_pd.reference.wire import PageServer, PeerLink, TransferError

_log = logging.getLogger("vllm.base_worker")
_NIXL_PORT = 5600
_LEASE_S = 30.0
_NEEDED = ("remote_block_ids", "remote_engine_id", "remote_host", "remote_port")


class PullConnector:
    """Serves the blocks of this engine and fetches those of others."""

    cache_source = "p2p"

    def __init__(self, config: KvTransferConfig, seat: Seat) -> None:
        self.config = config
        self.lease_s = float(config.extra.get("kv_lease_duration", _LEASE_S))
        self.engine_id = config.engine_id or str(uuid.uuid4())
        self._seat = seat
        self._host = seat.env.get("VLLM_NIXL_SIDE_CHANNEL_HOST", "localhost")
        self._server = self._listen(side_channel_port(config, seat))
        _log.info("Initializing NIXL worker %s", self.engine_id)

    def match(self, request: Request, local_tokens: int) -> int:
        """Return the tokens of the whole prompt that are not here yet."""
        asked = request.kv_transfer or {}
        if not asked.get("do_remote_prefill"):
            return 0
        if any(asked.get(name) is None for name in _NEEDED):
            _log.warning(
                "Got invalid KVTransferParams: %s. This request will not utilize "
                "KVTransfer",
                dict(asked),
            )
            return 0
        return max(request.prompt_tokens - local_tokens, 0)

    def load(
        self, request: Request, blocks: Sequence[int], local_tokens: int
    ) -> Transfer:
        """Read the prompt's blocks from the producer and tell it so."""
        asked = request.kv_transfer or {}
        size = self._seat.block_size
        wanted = blocks_for(request.prompt_tokens, size) - local_tokens // size
        remote = _flat(asked["remote_block_ids"])[-wanted:]
        if len(remote) < wanted:
            raise TransferError(f"{len(remote)} blocks were offered, not {wanted}.")
        started = time.perf_counter()
        with self._dial(asked) as link:
            link.ask_pages(remote)
            posted = time.perf_counter()
            pages = self._shaped(link.pages())
            self._seat.mover.receive(blocks[: len(remote)], pages)
            link.done(asked.get("remote_request_id"))
        return Transfer(
            tokens=request.prompt_tokens - local_tokens,
            size_bytes=pages.nbytes,
            descriptors=len(pages) * _runs(remote),
            time_s=time.perf_counter() - started,
            post_s=posted - started,
        )

    def save(self, request: Request) -> None:
        """Nothing: the consumer comes for it."""

    def hand_on(self, request: Request) -> Mapping[str, Any] | None:
        """Say where the prompt's blocks lie, if the request asks for that."""
        if not (request.kv_transfer or {}).get("do_remote_decode"):
            return None
        count = blocks_for(request.prompt_tokens, self._seat.block_size)
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [request.blocks[:count]],
            "remote_engine_id": self.engine_id,
            "remote_request_id": request.name,
            "remote_host": self._host,
            "remote_port": self._server.port,
            "tp_size": 1,
            "dcp_size": 1,
            "pp_size": 1,
            "remote_num_tokens": request.prompt_tokens,
            "remote_blocks_expiry_time": None,
            "transfer_mode": "pull",
            "remote_prefill_cached_tokens": request.cached,
        }

    def decline(self, request: Request) -> None:
        """Tell the producer that nobody will fetch the blocks."""
        asked = request.kv_transfer or {}
        with self._dial(asked) as link:
            link.done(asked.get("remote_request_id"))

    def close(self) -> None:
        """Stop listening."""
        self._server.close()

    def _listen(self, port: int) -> PageServer:
        try:
            return PageServer(self._host, port, self._answer)
        except OSError as exc:
            raise SpecError(
                f"The KV side channel cannot listen on {self._host}:{port}: {exc}.",
                hint="set VLLM_NIXL_SIDE_CHANNEL_PORT to a free port",
            ) from exc

    def _dial(self, asked: Mapping[str, Any]) -> PeerLink:
        greeting = {"engine": asked["remote_engine_id"], "layout": self._layout()}
        host, port = str(asked["remote_host"]), int(asked["remote_port"])
        return PeerLink(host, port, greeting)

    def _layout(self) -> dict[str, Any]:
        """What both sides must have in common for pages to mean the same."""
        pool = self._seat.mover.pool
        sizes = [pool.shape.layers, pool.shape.kv_heads, pool.block_size]
        return {"sizes": [*sizes, pool.shape.head_dim], "dtype": pool.dtype}

    def _shaped(self, blob: bytes) -> Stored:
        pool = self._seat.mover.pool
        shape = pool.shape
        flat: Stored = np.frombuffer(blob, storage_dtype(pool.dtype))
        size = self._seat.block_size
        return flat.reshape(shape.layers, 2, -1, shape.kv_heads, size, shape.head_dim)

    def _answer(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Reply to one message of a consumer."""
        if message.get("engine") != self.engine_id:
            wanted = message.get("engine")
            return {"error": f"this is engine {self.engine_id}, not {wanted}"}, b""
        if message.get("layout") != self._layout():
            return {"error": f"KV layouts differ, here it is {self._layout()}"}, b""
        if message["op"] == "done":
            self._seat.released(str(message.get("request")))
            return {"ok": True}, b""
        blocks = message["blocks"]
        total = self._seat.mover.pool.data.shape[2]
        if any(not 0 <= block < total for block in blocks):
            return {"error": f"block ids are 0 to {total - 1}, not {blocks}"}, b""
        pages = self._seat.mover.send(blocks)
        return {"ok": True, "bytes": pages.nbytes}, pages.tobytes()


def side_channel_port(config: KvTransferConfig, seat: Seat) -> int:
    """Return the port to listen on: NIXL's variable plus the data-parallel rank.

    Without the variable, ``NixlConnector`` takes vLLM's 5600 and
    ``ReferencePullConnector`` a free port.
    """
    first = seat.env.get("VLLM_NIXL_SIDE_CHANNEL_PORT")
    if first is None and config.connector != "NixlConnector":
        return 0
    return int(first or _NIXL_PORT) + seat.rank


def _flat(blocks: Sequence[Any]) -> list[int]:
    """Return block ids that come as one list per group, or plain."""
    nested = bool(blocks) and isinstance(blocks[0], list)
    return [int(block) for block in (blocks[0] if nested else blocks)]


def _runs(blocks: Sequence[int]) -> int:
    """Count runs of neighbouring blocks: each is read as one piece per layer."""
    return sum(1 for i, b in enumerate(blocks) if i == 0 or b != blocks[i - 1] + 1)
