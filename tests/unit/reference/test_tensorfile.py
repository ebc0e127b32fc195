"""Our safetensors files and the library's are the same thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pytest_pd.reference import tensorfile

TENSORS = {
    "half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "single": np.linspace(0, 1, 5, dtype=np.float32),
    "double": np.zeros((1, 2, 2)),
    "count": np.array([1, 2, 3], np.int64),
}


def test_the_library_reads_what_we_write(tmp_path: Path):
    path = tmp_path / "ours.safetensors"
    path.write_bytes(tensorfile.encode(TENSORS))

    read = load_file(path)

    assert all(np.array_equal(read[name], TENSORS[name]) for name in TENSORS)


def test_we_read_what_the_library_writes(tmp_path: Path):
    path = tmp_path / "theirs.safetensors"
    save_file(TENSORS, path)

    read = tensorfile.read(path)

    assert all(np.array_equal(read[name], TENSORS[name]) for name in TENSORS)


def test_bytes_do_not_depend_on_the_order_of_names():
    turned = dict(reversed(TENSORS.items()))

    assert tensorfile.encode(turned) == tensorfile.encode(TENSORS)


def test_bfloat16_keeps_its_bits():
    bits = np.array([0x3F80, 0xC000], np.uint16)

    blob = tensorfile.encode({"kv": bits}, bf16=True)

    assert b'"BF16"' in blob
    assert np.array_equal(tensorfile.decode(blob)["kv"], bits)


def test_data_starts_at_a_multiple_of_eight():
    blob = tensorfile.encode(TENSORS)

    assert int.from_bytes(blob[:8], "little") % 8 == 0


@pytest.mark.parametrize("keep", [0, 4, 8, 40, -1])
def test_a_file_cut_short_is_refused(keep: int):
    blob = tensorfile.encode(TENSORS)

    with pytest.raises(ValueError, match=r"."):
        tensorfile.decode(blob[:keep])


def test_a_type_without_name_is_refused():
    with pytest.raises(KeyError):
        tensorfile.encode({"flags": np.array([True])})
