"""The safetensors format in a few lines: files are the same bytes on every run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

_CODES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2", "I64": "<i8"}
_NAMES = {np.dtype(code): name for name, code in _CODES.items() if name != "BF16"}
_ALIGNMENT_BYTES = 8


def encode(tensors: Mapping[str, Array], *, bf16: bool = False) -> bytes:
    """Return `tensors` as one safetensors file, in the order of their names.

    Args:
        tensors: Name to array of type float16, float32, float64 or int64; uint16
            holds the bits of bfloat16 when `bf16` is true.
        bf16: Write uint16 arrays as ``BF16``.

    Raises:
        KeyError: an array has a type that is not listed above.

    Source:
        https://github.com/huggingface/safetensors#format
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    parts = []
    for name in sorted(tensors):
        data = np.ascontiguousarray(tensors[name])
        dtype = "BF16" if bf16 and data.dtype == np.uint16 else _NAMES[data.dtype]
        span = [offset, offset + data.nbytes]
        header[name] = {"dtype": dtype, "shape": data.shape, "data_offsets": span}
        parts.append(data.tobytes())
        offset = span[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def decode(blob: bytes) -> dict[str, Array]:
    """Return the arrays of a safetensors file; bfloat16 comes as uint16 bits.

    Raises:
        ValueError: the bytes are no safetensors file, or end too early.
    """
    start = 8 + int.from_bytes(blob[:8], "little")
    if len(blob) < start:
        raise ValueError(f"the header ends at byte {start}, the file at {len(blob)}")
    tensors = {}
    for name, entry in json.loads(blob[8:start]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            part = blob[start + first : start + last]
            data = np.frombuffer(part, _CODES[entry["dtype"]])
            tensors[name] = data.reshape(entry["shape"])
    return tensors


def read(path: Path) -> dict[str, Array]:
    """Return the arrays in the file `path`."""
    return decode(path.read_bytes())
