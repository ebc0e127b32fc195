"""Exports hold against the formats of others."""

from __future__ import annotations

import json

import pytest
import yaml

from pytest_pd.cli import main
from pytest_pd.report.export_inferencex import inferencex_row, problems_of
from pytest_pd.report.points import points_of
from pytest_pd.report.read import read_run
from tests.run_kit import PLAN, entry, passed, write_run
from tests.services import require

SERVICES = [
    {"name": "prefill-0", "role": "prefill", "node": "n0", "gpu_ids": [0, 1]},
    {"name": "prefill-1", "role": "prefill", "node": "n0", "gpu_ids": [2, 3]},
    {"name": "decode-0", "role": "decode", "node": "n1", "gpu_ids": [0, 1, 2, 3]},
    {"name": "router", "role": "router", "node": "n0", "argv": ["vllm-router"]},
]
for replica, service in enumerate(SERVICES):
    service["replica"] = replica % 2
NODES = [{"name": name, "gpus_used": 4} for name in ("n0", "n1")]
PLAN_GPU = PLAN | {"services": SERVICES, "nodes": NODES, "hardware": "h100"}
LOCK = {
    "topology": {
        "model": {"ref": "llama31", "precision": "fp8"},
        "engine": {"image": "vllm/vllm-openai:v0.32"},
        "prefill": {"tp": 2},
        "decode": {"tp": 4, "speculative": {"method": "mtp"}},
    }
}


def entries(**more):
    given = {"input_tokens_mean": 3000.0, "output_tokens_mean": 150.0, **more}
    given |= {"requests": 20, "outcomes": {"ok": 19, "timeout": 1}, "streams": 8}
    return [
        entry("ttft", [0.1, 0.2, 0.3], **given),
        entry("itl", [0.01, 0.02], **given),
        entry("tpot", [0.01], **given),
        entry("e2e", [2.0], **given),
        entry("output_token_time", [0.001], tokens_per_s=800.0, **given),
        entry("request_time", [0.2], requests_per_s=5.0, **given),
    ]


@pytest.fixture
def run(tmp_path):
    path = write_run(
        tmp_path / "r1", entries=entries(), plan=PLAN_GPU, verdict=passed()
    )
    (path / "local_1p1d" / "plan.lock.yaml").write_text(yaml.safe_dump(LOCK))
    return path


def row_of(path):
    record = read_run(path)
    (point,) = points_of([record])
    return inferencex_row(record.topologies[0], point)


def test_inferencex_row_counts_gpus_by_phase(run):
    row = row_of(run)

    assert problems_of(row) == []
    assert (row["num_prefill_gpu"], row["num_decode_gpu"]) == (4, 4)
    assert (row["prefill_tp"], row["decode_tp"]) == (2, 4)
    assert (row["prefill_num_workers"], row["decode_num_workers"]) == (2, 1)
    assert (row["disagg"], row["is_multinode"]) == (True, True)
    assert (row["isl"], row["osl"], row["conc"]) == (3000, 150, 8)
    assert (row["precision"], row["spec_decoding"]) == ("fp8", "mtp")
    assert row["image"] == "vllm#vllm-openai:v0.32"


def test_inferencex_rates_name_their_denominators(run):
    row = row_of(run)

    assert row["output_tput_per_gpu"] == 800 / 4
    assert row["input_tput_per_gpu"] == 5 * 3000 / 4
    assert row["tput_per_gpu"] == (800 + 15000) / 8
    assert row["median_ttft"] == 0.2
    assert row["median_intvty"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"conc": 0}, "conc is 0"),
        ({"disagg": "true"}, "disagg is no flag"),
        ({"hw": ""}, "hw is empty"),
        ({"model": None}, "model is no text"),
        ({"isl": 3.5}, "isl is no count"),
        ({"tput_per_gpu": 0.0}, "tput_per_gpu is not above 0"),
    ],
)
def test_row_that_its_reader_would_refuse_is_told(run, change, told):
    assert problems_of(row_of(run) | change) == [told]


def test_inferencex_files_are_rows_and_all_in_one(run, tmp_path):
    out = tmp_path / "out"

    assert main(["report", str(run), "--layout", "inferencex", "--out", str(out)]) == 0

    (row,) = json.loads((out / "inferencex" / "results_bmk.json").read_text())
    name = "agg_r1_local_1p1d_local_sweep_c8.json"
    assert json.loads((out / "inferencex" / name).read_text()) == row


def test_rows_without_gpus_are_refused(tmp_path, capsys):
    path = write_run(tmp_path / "r1", entries=entries(), verdict=passed())

    assert main(["report", str(path), "--layout", "inferencex"]) == 2
    assert "per GPU" in capsys.readouterr().err


def exported(run, out):
    assert main(["report", str(run), "--layout", "llm-d", "--out", str(out)]) == 0
    (path,) = (out / "llm-d").iterdir()
    return path


def test_llmd_report_passes_its_own_schema(run, tmp_path):
    try:
        from llmd_benchmark_report import import_benchmark_report
    except ImportError:
        require("llmd-benchmark-report", "pip install llmd-benchmark-report")

    report = import_benchmark_report(str(exported(run, tmp_path / "out")))

    assert report.version == "0.2.1"
    aggregate = report.results.request_performance.aggregate
    assert aggregate.latency.time_to_first_token.p50 == 0.2
    assert aggregate.requests.failures == 1
    roles = [c.standardized.kind for c in report.scenario.stack]
    assert roles == ["inference_engine", "inference_engine", "generic"]


def test_llmd_report_tells_engines_and_load(run, tmp_path):
    data = yaml.safe_load(exported(run, tmp_path / "out").read_text())

    prefill, decode, router = data["scenario"]["stack"]
    assert prefill["standardized"]["replicas"] == 2
    assert prefill["standardized"]["accelerator"]["count"] == 2
    assert decode["standardized"]["accelerator"]["parallelism"]["tp"] == 4
    assert router["native"]["config"]["argv"] == ["vllm-router"]
    assert data["scenario"]["load"]["standardized"]["concurrency"] == 8
    rates = data["results"]["request_performance"]["aggregate"]["throughput"]
    assert rates["output_token_rate"] == {"units": "tokens/s", "mean": 800.0}


def test_points_that_do_not_hold_are_not_exported(tmp_path, capsys):
    path = write_run(tmp_path / "r1", entries=entries(valid=False), verdict=passed())

    assert main(["report", str(path), "--layout", "llm-d"]) == 2
    assert "no measured point" in capsys.readouterr().err
