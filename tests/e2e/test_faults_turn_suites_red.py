"""Each fault switch of the reference engine turns at least one suite red."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SUITES = Path(__file__).parents[2] / "suites"

TOPOLOGY = {
    "hardware": "cpu",
    "model": {"path": "fixtures/models/tiny", "served_name": "tiny"},
    "engine": {"kind": "reference"},
    "prefill": {"replicas": 1},
    "router": {"kind": "proxy"},
}
TRANSFER = {
    "shared_storage": {"connector": "shared_storage", "path": "{run_dir}/kv"},
    "tcp": {"connector": "tcp"},
}

CASES = [
    pytest.param("shared_storage", {"kind": "kv_bit_flip"}, id="bit-flip-files"),
    pytest.param("tcp", {"kind": "kv_bit_flip", "layer": 3, "head": 1}, id="bit-flip"),
    pytest.param("tcp", {"kind": "kv_bit_flip", "after": 20}, id="bit-flip-after-20"),
    pytest.param("tcp", {"kind": "kv_swap"}, id="swap"),
    pytest.param("shared_storage", {"kind": "kv_swap", "after": 20}, id="swap-after"),
    pytest.param("tcp", {"kind": "kv_stale"}, id="stale"),
    pytest.param("tcp", {"kind": "silent_recompute"}, id="recompute"),
    pytest.param("shared_storage", {"kind": "silent_recompute"}, id="recompute-files"),
    pytest.param(
        "tcp", {"kind": "silent_recompute", "after": 20}, id="recompute-after-20"
    ),
]


def run(
    folder: Path, transfer: str, fault: dict | None, *, suite: str = "", **keys: dict
) -> tuple[int, set[str]]:
    """Run the correctness suites and return the exit code and the red checks."""
    content = {
        **TOPOLOGY,
        "name": "faulty",
        "kv_transfer": TRANSFER[transfer],
        "decode": {"replicas": 1, "faults": [fault] if fault else []},
        **keys,
    }
    file = folder / "faulty.yaml"
    file.write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(SUITES / "correctness" / suite)),
            *("--pd-topology", str(file), "--pd-run-dir", str(folder / "run")),
            *("-p", "no:cacheprovider", "-p", "no:randomly", "-rfE", "-q"),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=folder,
        check=False,
    )
    ends = re.findall(r"^(FAILED|ERROR) \S*::(\w+)", done.stdout, re.MULTILINE)
    assert not [name for how, name in ends if how == "ERROR"], done.stdout[-2000:]
    return done.returncode, {name for _, name in ends}


@pytest.mark.parametrize("transfer", sorted(TRANSFER))
def test_without_a_fault_everything_is_green(tmp_path, transfer):
    assert run(tmp_path, transfer, None) == (0, set())


@pytest.fixture
def other(tmp_path):
    """The model under another name: only the engine can count its prompts."""
    copied = shutil.copytree(SUITES.parent / "fixtures/models/tiny", tmp_path / "other")
    return {"path": str(copied), "served_name": "other"}


@pytest.mark.parametrize("transfer", sorted(TRANSFER))
def test_prompts_of_unknown_length_are_green(tmp_path, transfer, other):
    pool = {"replicas": 1, "args": ["--no-enable-prefix-caching"]}
    keys = {"model": other, "prefill": pool, "decode": pool}

    found = run(tmp_path, transfer, None, suite="test_handover.py", **keys)

    assert found == (0, set())


def test_a_decode_that_computes_prompts_of_unknown_length_is_red(tmp_path, other):
    fault = {"kind": "silent_recompute"}

    code, red = run(tmp_path, "tcp", fault, suite="test_handover.py", model=other)

    assert code == 1
    assert red >= {
        "test_decode_gets_the_tokens_that_the_prompts_predict",
        "test_bytes_are_those_of_the_models_shape",
    }


@pytest.mark.parametrize(("transfer", "fault"), CASES)
def test_fault_turns_a_check_red(tmp_path, transfer, fault):
    code, red = run(tmp_path, transfer, fault)

    assert code == 1
    assert red
