"""Bytes that others wrote are read or refused with a reason; nothing else happens.

Short here, with the same examples every time: new ones are for the long runs, which
have time to look at what they find. ``make fuzz`` gives each parser 20 CPU-minutes
(`tests/fuzz/long.py`).
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pd.errors import PdError
from tests.fuzz.targets import TARGETS, seeds

EXAMPLES = {"topology": 30, "run_folder": 30, "lm_eval": 30}
MOST = 60

ODD = st.sampled_from(
    [None, True, 0, -1, 2**70, 1e308, float("nan"), "", "x", "\0", "..", "ü\ud800"]
) | st.sampled_from([[], {}, [None], {"": {}}, [[[]]], "9" * 5000])


def survives(name: str, data: bytes) -> None:
    """Run a target; a refusal with words is as good as an answer."""
    with suppress(PdError):
        TARGETS[name](data)


@st.composite
def spliced(draw: Any, data: bytes) -> bytes:
    """Cut, double, swap or overwrite pieces of real bytes."""
    parts = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(parts) - 1)))
        size = draw(st.integers(0, 64))
        what = draw(st.sampled_from(["cut", "double", "put", "end"]))
        if what == "cut":
            del parts[at : at + size]
        elif what == "double":
            parts[at:at] = parts[at : at + size]
        elif what == "end":
            del parts[at:]
        else:
            parts[at : at + size] = draw(st.binary(max_size=24))
    return bytes(parts)


@st.composite
def bent(draw: Any, data: bytes) -> bytes:
    """Replace or remove one value of each JSON text in the bytes, at any depth."""
    lines = []
    for line in data.split(b"\n"):
        lead = b"data: " if line.startswith(b"data: ") else b""
        try:
            value = json.loads(line.removeprefix(lead))
        except ValueError:
            lines.append(line)
            continue
        text = json.dumps(bend(draw, value))
        lines.append(lead + text.encode("utf-8", "surrogatepass"))
    return b"\n".join(lines)


def bend(draw: Any, value: Any) -> Any:
    """Return a value with one place in it changed."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 4)):
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: bend(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], bend(draw, value[at]), *value[at + 1 :]]
    return draw(ODD)


def whole(data: bytes) -> bytes:
    """Return a JSON document on one line, so that `bent` sees it; others as is."""
    try:
        return json.dumps(json.loads(data)).encode()
    except ValueError:
        return data


@pytest.mark.parametrize("name", TARGETS)
def test_real_inputs_are_read(name):
    assert seeds(name)
    for data in seeds(name):
        survives(name, data)


@pytest.mark.parametrize("name", TARGETS)
def test_spliced_inputs_are_read_or_refused(name):
    @settings(max_examples=EXAMPLES.get(name, MOST), database=None)
    @given(st.sampled_from(seeds(name)).flatmap(spliced))
    def check(data):
        survives(name, data)

    check()


@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"log", "metrics", "slurm"}))
def test_bent_values_are_read_or_refused(name):
    inputs = [whole(data) for data in seeds(name)]

    @settings(max_examples=EXAMPLES.get(name, MOST), database=None)
    @given(st.sampled_from(inputs).flatmap(bent))
    def check(data):
        survives(name, data)

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_are_read_or_refused(name):
    @settings(max_examples=MOST // 2, database=None)
    @given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
    def check(data):
        survives(name, data)

    check()
