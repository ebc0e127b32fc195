"""Counters, gauges and histograms in the names and shapes of vLLM's ``/metrics``.

Which families there are is data: ``data/vllm_metrics.json``, taken from a real page.
"""

from __future__ import annotations

import json
import os
import resource
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parent / "data" / "vllm_metrics.json"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: name, kind, help, its own labels and the edges of its buckets."""

    name: str
    kind: str
    help: str
    labels: tuple[Mapping[str, str], ...]
    edges: tuple[float, ...]
    per_engine: bool


def read_families(max_model_len: int) -> tuple[Family, ...]:
    """Return the families; buckets of token counts go up to `max_model_len`."""
    content = json.loads(_DATA.read_text("utf-8"))["families"]
    return tuple(_family(entry, max_model_len) for entry in content)


def read_cache_labels() -> dict[str, str]:
    """Return the labels of ``vllm:cache_config_info`` with their usual values."""
    labels = json.loads(_DATA.read_text("utf-8"))["cache_config_info"]
    return {str(name): str(value) for name, value in labels.items()}


def _family(entry: Mapping[str, Any], max_model_len: int) -> Family:
    edges = entry.get("buckets", ())
    if edges == "1-2-5":
        edges = _steps(max_model_len)
    labels = tuple(entry.get("labels", ({},)))
    own = bool(entry.get("per_engine", True))
    return Family(
        entry["name"], entry["kind"], entry["help"], labels, tuple(edges), own
    )


def _steps(last: int) -> tuple[float, ...]:
    """Return 1, 2, 5, 10, 20, ... up to `last`."""
    found: list[float] = []
    scale = 1
    while scale <= last:
        found += [float(scale * m) for m in (1, 2, 5) if scale * m <= last]
        scale *= 10
    return tuple(found)


class EngineMetrics:
    """The values of one engine; its thread writes, the server's thread reads.

    Args:
        families: What `read_families` returned.
        engine: Value of the label ``engine``, the global rank.
        model_name: Value of the label ``model_name``.
    """

    def __init__(
        self, families: Sequence[Family], *, engine: int, model_name: str
    ) -> None:
        self.labels = {"engine": str(engine), "model_name": model_name}
        self.created_s = time.time()
        self._values: dict[tuple[str, str], float] = {}
        self._histograms: dict[str, tuple[Family, list[int]]] = {}
        for family in families:
            if family.kind == "histogram":
                self._histograms[family.name] = family, [0] * (len(family.edges) + 1)
                self._values[family.name, ""] = 0.0
            else:
                for labels in family.labels:
                    self._values[family.name, _own(labels)] = 0.0

    def add(self, name: str, amount: float = 1.0, own: str = "") -> None:
        """Raise the counter `name` by `amount`; `own` is the value of its own label."""
        self._values[f"vllm:{name}_total", own] += amount

    def set(self, name: str, value: float, own: str = "") -> None:
        """Set the gauge `name`."""
        self._values[f"vllm:{name}", own] = value

    def observe(self, name: str, value: float) -> None:
        """Add one observation to the histogram `name`."""
        full = f"vllm:{name}"
        family, counts = self._histograms[full]
        counts[bisect_left(family.edges, value)] += 1
        self._values[full, ""] += value

    def value(self, name: str, own: str = "") -> float:
        """Return a counter, a gauge, or the sum of a histogram, by its full name."""
        return self._values[name, own]

    def count(self, name: str) -> int:
        """Return the observations of a histogram, by its full name."""
        return sum(self._histograms[name][1])

    def lines(self, family: Family) -> Iterator[str]:
        """Yield the sample lines of one family."""
        if family.kind == "histogram":
            yield from self._histogram_lines(family)
            return
        base = self.labels if family.per_engine else {"model_name": self._model}
        for labels in family.labels:
            value = self._values[family.name, _own(labels)]
            yield sample(family.name, {**base, **labels}, value)

    @property
    def _model(self) -> str:
        return self.labels["model_name"]

    def _histogram_lines(self, family: Family) -> Iterator[str]:
        _, counts = self._histograms[family.name]
        passed = 0
        edges = (*map(go_float, family.edges), "+Inf")
        for edge, count in zip(edges, list(counts), strict=True):
            passed += count
            labels = {**self.labels, "le": edge}
            yield sample(f"{family.name}_bucket", labels, passed)
        yield sample(f"{family.name}_count", self.labels, passed)
        yield sample(f"{family.name}_sum", self.labels, self._values[family.name, ""])


def _own(labels: Mapping[str, str]) -> str:
    return next(iter(labels.values()), "")


def sample(name: str, labels: Mapping[str, str], value: float) -> str:
    """Return one line of the text format, labels in the order of their names."""
    inner = ",".join(f'{key}="{_escaped(labels[key])}"' for key in sorted(labels))
    return (
        f"{name}{{{inner}}} {go_float(value)}" if inner else f"{name} {go_float(value)}"
    )


def go_float(value: float) -> str:
    """Return a number as Prometheus clients write it: 2.097152e+06 from 7 digits on."""
    text = repr(float(value))
    digits = text.find(".")
    if digits > 6 and "e" not in text:
        mantissa = f"{text[0]}.{text[1:digits]}{text[digits + 1 :]}".rstrip("0").rstrip(
            "."
        )
        return f"{mantissa}e+0{digits - 1}"
    return text


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def render(families: Sequence[Family], engines: Sequence[EngineMetrics]) -> list[str]:
    """Return the lines of the page, without families of connectors not in use."""
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}"]
        lines += [f"# TYPE {family.name} {family.kind}"]
        shown = engines if family.per_engine else engines[:1]
        for engine in shown:
            lines += engine.lines(family)
    return lines


def process_lines(started_s: float) -> list[str]:
    """Return memory, CPU seconds and start time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    values = {
        "process_resident_memory_bytes": ("gauge", pages * os.sysconf("SC_PAGE_SIZE")),
        "process_start_time_seconds": ("gauge", started_s),
        "process_cpu_seconds_total": ("counter", usage.ru_utime + usage.ru_stime),
        "process_open_fds": ("gauge", len(list(Path("/proc/self/fd").iterdir()))),
    }
    lines = []
    for name, (kind, value) in values.items():
        lines += [f"# TYPE {name} {kind}", sample(name, {}, value)]
    return lines
