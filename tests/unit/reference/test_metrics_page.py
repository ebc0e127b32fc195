"""The metrics page has the families of a real vLLM page, label for label."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_pd.reference.metrics import (
    EngineMetrics,
    go_float,
    process_lines,
    read_families,
    render,
    sample,
)

REAL = Path(__file__).parent / "samples" / "vllm_metrics.txt"
SERIES = re.compile(r"^([\w:]+)(?:\{(.*)\})? (\S+)$")


def page(lines: list[str]) -> tuple[dict[str, str], dict[tuple[str, str], float]]:
    """Return kinds by family, and values by (name, labels)."""
    kinds, values = {}, {}
    for line in lines:
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            kinds[name] = kind
        elif not line.startswith("#"):
            name, labels, value = SERIES.match(line).groups()
            values[name, labels or ""] = float(value)
    return kinds, values


@pytest.fixture
def real() -> list[str]:
    lines = REAL.read_text().splitlines()
    return [line for line in lines if "cache_config_info" not in line]


@pytest.fixture
def metrics() -> EngineMetrics:
    return EngineMetrics(read_families(2048), engine=0, model_name="tiny")


def test_kinds_of_all_families_are_vllms(real, metrics):
    ours, theirs = page(render(read_families(2048), [metrics])), page(real)

    assert ours[0] == theirs[0]


def test_all_series_are_vllms(real, metrics):
    ours, theirs = page(render(read_families(2048), [metrics])), page(real)

    assert ours[1].keys() == theirs[1].keys()


def test_help_texts_are_vllms(real, metrics):
    ours = render(read_families(2048), [metrics])

    helps = [line for line in real if line.startswith("# HELP")]
    assert set(helps) <= set(ours)


def test_token_buckets_end_at_the_context():
    (family,) = [
        f for f in read_families(300) if f.name == "vllm:request_prompt_tokens"
    ]

    assert family.edges == (1, 2, 5, 10, 20, 50, 100, 200)


def test_an_observation_is_in_every_wider_bucket(metrics):
    metrics.observe("request_prompt_tokens", 50)
    metrics.observe("request_prompt_tokens", 51)

    (family,) = [
        f for f in read_families(2048) if f.name == "vllm:request_prompt_tokens"
    ]
    _, values = page(list(metrics.lines(family)))
    base = 'engine="0",le="{}",model_name="tiny"'
    name = "vllm:request_prompt_tokens"
    assert values[f"{name}_bucket", base.format("20.0")] == 0
    assert values[f"{name}_bucket", base.format("50.0")] == 1
    assert values[f"{name}_bucket", base.format("100.0")] == 2
    assert values[f"{name}_bucket", base.format("+Inf")] == 2
    assert values[f"{name}_sum", 'engine="0",model_name="tiny"'] == 101


def test_counters_have_a_series_per_label(metrics):
    metrics.add("prompt_tokens_by_source", 7, "local_compute")

    lines = render(read_families(2048), [metrics])

    name = "vllm:prompt_tokens_by_source_total"
    labels = 'engine="0",model_name="tiny",source="{}"'
    assert f"{name}{{{labels.format('local_compute')}}} 7.0" in lines
    assert f"{name}{{{labels.format('local_cache_hit')}}} 0.0" in lines


def test_every_engine_has_its_label():
    families = read_families(64)
    engines = [EngineMetrics(families, engine=rank, model_name="m") for rank in (4, 5)]

    lines = render(families, engines)

    running = [line for line in lines if line.startswith("vllm:num_requests_running{")]
    assert [re.search(r'engine="(\d)"', line)[1] for line in running] == ["4", "5"]


def test_families_are_told_once(metrics):
    lines = render(read_families(2048), [metrics, metrics])

    types = [line for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))


def test_an_unknown_name_is_a_mistake(metrics):
    with pytest.raises(KeyError):
        metrics.add("no_such_counter")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.0"),
        (5.5, "5.5"),
        (978, "978.0"),
        (100_000, "100000.0"),
        (5_242_880, "5.24288e+06"),
        (2_097_152, "2.097152e+06"),
        (8_589_934_592, "8.589934592e+09"),
    ],
)
def test_numbers_are_written_as_prometheus_clients_do(value: float, text: str):
    assert go_float(value) == text


def test_labels_are_escaped():
    assert sample("a", {"b": 'x"y\\z\n'}, 1) == 'a{b="x\\"y\\\\z\\n"} 1.0'


def test_the_process_tells_its_memory():
    _, values = page(process_lines(1.0))

    assert values["process_resident_memory_bytes", ""] > 1e7
    assert values["process_open_fds", ""] >= 3
