"""Ten damaged requests of two hundred are caught, and so is damage that starts late."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SUITE = Path(__file__).parents[2] / "suites" / "accuracy" / "test_recall_pairs.py"
TOPOLOGY = {
    "name": "damaged",
    "hardware": "cpu",
    "model": {"path": "fixtures/models/tiny", "served_name": "tiny"},
    "engine": {"kind": "reference"},
    "kv_transfer": {"connector": "tcp"},
    "prefill": {"replicas": 1},
    "router": {"kind": "proxy"},
}


@pytest.mark.parametrize(
    ("fault", "caught_by"),
    [
        pytest.param(
            {"kind": "kv_bit_flip", "after": 60, "every": 7, "count": 10},
            {"test_no_accuracy_is_lost_against_aggregated"},
            id="ten-of-200",
        ),
        pytest.param(
            {"kind": "kv_bit_flip", "after": 110},
            {"test_accuracy_does_not_drift_over_the_run"},
            id="from-110-on",
        ),
    ],
)
def test_damage_is_caught(tmp_path, fault, caught_by):
    file = tmp_path / "damaged.yaml"
    content = {**TOPOLOGY, "decode": {"replicas": 1, "faults": [fault]}}
    file.write_text(yaml.safe_dump(content))

    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(SUITE)),
            *("--pd-topology", str(file), "--pd-level", "standard", "-rf", "-q"),
            *("-p", "no:cacheprovider", "-p", "no:randomly"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )

    red = set(re.findall(r"^FAILED \S*::(\w+)", done.stdout, re.MULTILINE))
    assert done.returncode == 1, done.stdout
    assert caught_by | {"test_answers_are_identical_at_temperature_0"} <= red
