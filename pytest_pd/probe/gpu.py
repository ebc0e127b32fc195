"""How busy the GPUs of this machine were while requests ran."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from pytest_pd.errors import EngineMissing

PERIOD_S = 0.05


class Nvml(Protocol):
    """The four functions of NVIDIA's management library that are used."""

    def nvmlInit(self) -> Any: ...
    def nvmlShutdown(self) -> Any: ...
    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any: ...
    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any: ...


@dataclass(slots=True)
class GpuUse:
    """Utilisation of each GPU in per cent, sample by sample.

    Attributes:
        samples: GPU id to values 0 to 100, each over the driver's own window of
            up to a second.
    """

    samples: dict[int, list[int]] = field(default_factory=dict)

    def peak(self, gpu: int) -> int:
        """Return the highest value seen, 0 without a sample."""
        return max(self.samples.get(gpu, [0]), default=0)


def load_nvml() -> Nvml:
    """Return NVIDIA's library.

    Raises:
        EngineMissing: the Python package is not installed.
    """
    try:
        module: Nvml = import_module("pynvml")
    except ImportError as error:
        raise EngineMissing(
            "GPU use cannot be sampled: nvidia-ml-py is not installed.",
            hint="pip install 'pytest-pd[gpu]'",
        ) from error
    return module


@contextmanager
def sampled(
    gpus: Sequence[int], *, nvml: Nvml | None = None, period_s: float = PERIOD_S
) -> Iterator[GpuUse]:
    """Sample the GPUs in the background until the block ends.

    Args:
        gpus: Ids as the driver numbers them.

    Raises:
        EngineMissing: the library is not here, or no driver answers it.
    """
    library = nvml or load_nvml()
    use, over = GpuUse({gpu: [] for gpu in gpus}), threading.Event()
    try:
        library.nvmlInit()
        handles = {gpu: library.nvmlDeviceGetHandleByIndex(gpu) for gpu in gpus}
    except Exception as error:  # NVML raises classes of its own
        raise EngineMissing(f"No NVIDIA driver answers here: {error}.") from error
    thread = threading.Thread(
        target=_sample, args=(library, handles, use, over, period_s), daemon=True
    )
    thread.start()
    try:
        yield use
    finally:
        over.set()
        thread.join()
        library.nvmlShutdown()


def _sample(
    library: Nvml,
    handles: dict[int, Any],
    use: GpuUse,
    over: threading.Event,
    period_s: float,
) -> None:
    while True:
        for gpu, handle in handles.items():
            rates = library.nvmlDeviceGetUtilizationRates(handle)
            use.samples[gpu].append(int(rates.gpu))
        if over.wait(period_s):
            return
