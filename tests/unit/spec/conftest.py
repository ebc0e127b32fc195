"""Specification files written into a test's own folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

BASE = """\
name: t
hardware: cpu
model: {path: m, served_name: m}
engine: {kind: reference}
kv_transfer: {connector: pull}
prefill: {replicas: 1}
decode: {replicas: 1}
router: {kind: proxy}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a topology: the smallest P/D one, with more text behind it."""

    def _write(more: str = "", *, name: str = "t.yaml", base: str = BASE) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(base + more, encoding="utf-8")
        return path

    return _write
