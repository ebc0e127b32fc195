"""Megatron-Core's copy services as engines: NCCL, NVSHMEM, NIXL on GPUs.

The plan stays ours (or megatron-core's, by the job's planner); a service only gets
``submit_send``, ``submit_recv`` and ``run``, as in megatron-core 0.19.2.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Protocol

import torch
import torch.distributed as dist

from pytest_pd.refit.transfer import Transfer
from pytest_pd.refit.worker.engine import Meter, ends
from pytest_pd.refit.worker.weights import Weights

PACKAGE = "megatron.core.resharding.copy_services"


class CopyService(Protocol):
    """What this engine uses of ``megatron.core...copy_services.base.CopyService``."""

    def submit_send(
        self, src_tensor: torch.Tensor, dest_rank: int, task_id: int | None = None
    ) -> None: ...

    def submit_recv(
        self, dest_tensor: torch.Tensor, src_rank: int, task_id: int | None = None
    ) -> None: ...

    def run(self) -> None: ...


class CopyServiceEngine:
    """Feeds one copy service with the transfers of this rank.

    Args:
        make_service: Called once, after the process group is up.
    """

    def __init__(self, make_service: Callable[[], CopyService]) -> None:
        self.meter = Meter()
        self._make_service = make_service
        self._service: CopyService | None = None
        self._ends: list[tuple[Transfer, torch.Tensor | None, torch.Tensor | None]] = []
        self._staging_bytes = 0

    @property
    def staging_bytes(self) -> int:
        return self._staging_bytes

    def prepare(
        self, plan: Sequence[Transfer], source: Weights, target: Weights
    ) -> None:
        rank = dist.get_rank()
        self._service = self._make_service()
        for transfer in plan:
            read, write = ends(transfer, source, target, rank)
            self._ends.append((transfer, read, write))
            self._staging_bytes += sum(
                each.nbytes
                for each in (read, write)
                if each is not None and not each.is_contiguous()
            )

    def refit(self) -> None:
        assert self._service is not None
        late: list[tuple[torch.Tensor, torch.Tensor]] = []
        for transfer, read, write in self._ends:
            if read is not None:
                sent = read.contiguous()
                self._service.submit_send(sent, transfer.target, task_id=transfer.task)
                self.meter.sent[transfer.target] += sent.nbytes
                self.meter.messages += transfer.source != transfer.target
            if write is not None:
                direct = write.is_contiguous()
                into = write if direct else torch.empty_like(write).contiguous()
                self._service.submit_recv(into, transfer.source, task_id=transfer.task)
                self.meter.received[transfer.source] += into.nbytes
                if not direct:
                    late.append((write, into))
        self._service.run()
        # NVSHMEM and NCCL return when the work is queued.
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        # As megatron-core's executor does: peers may still write into the buffers.
        if getattr(self._service, "requires_process_group_barrier", False):
            dist.barrier()
        for write, into in late:
            write.copy_(into)

    def close(self) -> None:
        close = getattr(self._service, "close", None)
        if close is not None:
            close()
        self._ends.clear()


def _engine(name: str, class_name: str) -> CopyServiceEngine:
    module = import_module(f"{PACKAGE}.{name}_copy_service")
    return CopyServiceEngine(getattr(module, class_name))


def nccl() -> CopyServiceEngine:
    """Return the engine over ``NCCLCopyService``: one batch of sends and receives."""
    return _engine("nccl", "NCCLCopyService")


def nvshmem() -> CopyServiceEngine:
    """Return the engine over ``NVSHMEMCopyService``, which demands two CTAs."""
    os.environ.setdefault("NVSHMEM_MAX_CTAS", "2")
    return _engine("nvshmem", "NVSHMEMCopyService")


def nixl() -> CopyServiceEngine:
    """Return the engine over ``NixlCopyService``."""
    return _engine("nixl", "NixlCopyService")


class TorchCopyService:
    """The same three calls over torch.distributed alone: no megatron-core needed.

    On GPUs this is plain NCCL point to point, on CPUs gloo.
    """

    def __init__(self) -> None:
        self._sends: list[tuple[torch.Tensor, int, int | None]] = []
        self._receives: list[tuple[torch.Tensor, int, int | None]] = []

    def submit_send(
        self, src_tensor: torch.Tensor, dest_rank: int, task_id: int | None = None
    ) -> None:
        """Queue a send."""
        self._sends.append((src_tensor, dest_rank, task_id))

    def submit_recv(
        self, dest_tensor: torch.Tensor, src_rank: int, task_id: int | None = None
    ) -> None:
        """Queue a receive."""
        self._receives.append((dest_tensor, src_rank, task_id))

    def run(self) -> None:
        """Do all that is queued and wait for it."""
        rank = dist.get_rank()
        local = {task: tensor for tensor, peer, task in self._sends if peer == rank}
        for tensor, peer, task in self._receives:
            if peer == rank:
                tensor.copy_(local[task])
        operations = _numbered(dist.irecv, self._receives, rank)
        operations += _numbered(dist.isend, self._sends, rank)
        for work in dist.batch_isend_irecv(operations) if operations else ():
            work.wait()
        self._sends.clear()
        self._receives.clear()


def _numbered(
    call: Callable[..., object],
    queued: Sequence[tuple[torch.Tensor, int, int | None]],
    rank: int,
) -> list[dist.P2POp]:
    # Both ranks queue in the order of the tasks, so the n-th of a pair is the same.
    seen: dict[int, int] = {}
    out = []
    for tensor, peer, _ in queued:
        if peer != rank:
            out.append(dist.P2POp(call, tensor, peer, tag=seen.get(peer, 0)))
            seen[peer] = seen.get(peer, 0) + 1
    return out


def torch_service() -> CopyServiceEngine:
    """Return the engine over `TorchCopyService`."""
    return CopyServiceEngine(TorchCopyService)
