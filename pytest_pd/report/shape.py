"""What the files of a run hold, so that a damaged one costs what is damaged. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST = 1e18
"""Larger than any figure of a run, and small enough to count and draw with."""
WORD = (str,)
NUMBER = (int, float)
MAYBE = (int, float, type(None))
ANY = (object,)

SERVICE = {
    "name!": WORD,
    "role": WORD,
    "ports": {},
    "gpu_ids": [ANY],
    "argv": [ANY],
    "replica": (int, str, type(None)),
}
ENDPOINT = {"url!": WORD, "service!": WORD}
PLAN = {
    "nodes": [{"gpus_used": NUMBER}],
    "services": [SERVICE],
    "endpoints": [ENDPOINT],
    "expected": {},
}
MANIFEST = {"created_s": NUMBER, "ended_s": NUMBER, "timings": {"*": NUMBER}}
ENVIRONMENT: dict[str, Any] = {"variables": {}, "versions": {}}
VERDICT = {
    "topologies": {"*": {"*": NUMBER}},
    "without_verdict": [ANY],
    "gate_lines": [ANY],
}
INSTRUMENT = {
    "calibration": {name: {"p99_s": MAYBE} for name in ("ttft", "itl", "e2e")},
    "gpus": {"*": {}},
    "send_lag_p99_s": MAYBE,
    "coalesced_share": NUMBER,
    "cpu_share": NUMBER,
    "load_average": NUMBER,
}
LOAD = {"concurrency": MAYBE, "rate_per_s": MAYBE, "arrivals": WORD}
WORDS = ("topology", "topology_hash", "hardware", "engine", "mode", "label", "unit")
INFO = {
    **dict.fromkeys((*WORDS, "router", "model", "run_id", "git_sha", "task"), WORD),
    "versions": {},
    "load": LOAD,
    "instrument": INSTRUMENT,
    "percentiles_s": {"p50!": NUMBER, "*": NUMBER},
    "reasons": [WORD],
    "bytes": NUMBER,
    "bytes_per_s_at_least": NUMBER,
    "input_tokens_mean": MAYBE,
    "output_tokens_mean": MAYBE,
    "n": NUMBER,
    "score": NUMBER,
    "stderr": MAYBE,
    "threshold": MAYBE,
}
"""Shapes: types of one value; a list of one shape; names to shapes.

``!`` behind a name: without it the whole mapping says nothing. ``*``: all other names.
Names that are not here may hold anything.
"""


def fitted(found: Mapping[str, Any], shape: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping without those parts that have another shape."""
    told: dict[str, Any] = {}
    for name, value in found.items():
        wanted = shape.get(name, shape.get(f"{name}!", shape.get("*", ANY)))
        try:
            told[name] = _fit(value, wanted)
        except TypeError:
            continue
    return told


def _fit(value: Any, shape: Any) -> Any:
    """Return what fits of a value.

    Raises:
        TypeError: nothing does.
    """
    if isinstance(shape, tuple):
        is_far = isinstance(value, int | float) and not abs(value) < MOST
        if not isinstance(value, shape) or (is_far and shape is not ANY):
            raise TypeError(value)
        return value
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise TypeError(value)
        return [kept for item in value for kept in _kept(item, shape[0])]
    if not isinstance(value, Mapping):
        raise TypeError(value)
    told = fitted(value, shape)
    if any(name[:-1] not in told for name in shape if name.endswith("!")):
        raise TypeError(value)
    return told


def _kept(item: Any, shape: Any) -> list[Any]:
    try:
        return [_fit(item, shape)]
    except TypeError:
        return []
