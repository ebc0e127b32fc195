"""Any part of a run's files may be of any shape: the figures beside it stay."""

from __future__ import annotations

import copy
import json
import random
from itertools import product

import pytest

from pytest_pd.cli import main
from pytest_pd.command.compare import text_of
from pytest_pd.errors import PdError
from pytest_pd.report.accept import accept
from pytest_pd.report.compare import compare
from pytest_pd.report.night import night_of, night_text
from pytest_pd.report.read import read_run
from pytest_pd.report.write import files_of
from pytest_pd.spec.baseline import BaselineFile
from tests.run_kit import PLAN, entry, passed, write_run

WRONG = (None, [1], "x", 7, {"k": 1}, 1e300)
MOST = 100
"""Places that are tried in a file; always the same ones."""
SERVICE = {
    "name": "prefill-0",
    "role": "prefill",
    "node": "node0",
    "argv": ["serve"],
    "gpu_ids": [0],
    "ports": {"http": 1},
    "replica": 0,
    "image": "x",
}
SEEN = {
    "instrument": {
        "engine": "kernel",
        "gpus": {"0": {"sm_clock_mhz_min": 1, "sm_clock_mhz_max": 2, "slowdowns": []}},
        "calibration": {"ttft": {"p99_s": 0.1}},
        "send_lag_p99_s": 0.1,
        "coalesced_share": 0.1,
        "cpu_share": 0.1,
        "load_average": 1.0,
    },
    "percentiles_s": {"p50": 0.1, "p99": 0.2},
    "reasons": ["none"],
    "versions": {"python": "3"},
    "git_sha": "abc",
    "hardware": "cpu",
    "input_tokens_mean": 4.0,
    "tokens_per_s": 4.0,
}
BOUND = {"bytes_per_s_at_least": 1e6, "bytes": 4, "load": {}}
SCORE = {"score": 0.5, "n": 4, "scores": {"aggregated": 0.5}, "stderr": 0.1, "load": {}}
FILES = ("verdict.json", "plan.json", "manifest.json", "environment.json", "entries")


def report(run, _good):
    files_of([run], run.path)


def history(run, _good):
    night_text(night_of(run))


def accept_baseline(run, _good):
    accept(BaselineFile(), [run], gate=None, told={})


def compare_runs(run, good):
    found = compare([good], [run], effect=0.05, confidence=0.95, jitter=0, force=True)
    text_of(found, [good], [run], forced=True, notes=[])


def write(path):
    made = write_run(
        path,
        entries=[
            entry(**SEEN),
            entry("kv_handover_bound", **BOUND),
            entry("score", **SCORE),
        ],
        plan={
            **PLAN,
            "services": [SERVICE, {**SERVICE, "name": "router", "role": "router"}],
            "endpoints": [{"url": "http://a", "service": "prefill-0", "role": "x"}],
        },
        verdict={**passed(), "exit_status": 1, "gate": "", "gate_lines": ["ok"]},
        environment={"variables": {"A": "b"}, "versions": {"x": "1"}, "cpu_count": 2},
    )
    manifest = made / "local_1p1d" / "manifest.json"
    told = {"created_s": 1e9, "ended_s": 2e9, "timings": {"total": 1.0}}
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **told}))
    return made


def places(value, path=()):
    """Yield the path of every node of a JSON value, the whole first."""
    yield path
    pairs = value.items() if isinstance(value, dict) else ()
    for key, inner in enumerate(value) if isinstance(value, list) else pairs:
        yield from places(inner, (*path, key))


def put(value, path, new):
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_shape_anywhere_ends_no_command(tmp_path, name):
    good = read_run(write(tmp_path / "good"))
    made = write(tmp_path / "bad")
    folder = made if name == "verdict.json" else made / "local_1p1d"
    path = folder / (name if "." in name else f"{name}.jsonl")
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    cases = list(product(places(rows), WRONG))
    random.Random(1).shuffle(cases)

    broken = []
    for (where, wrong), command in product(
        cases[:MOST], (report, history, accept_baseline, compare_runs)
    ):
        if not where:
            continue
        path.write_text("\n".join(map(json.dumps, put(rows, where, wrong))))
        try:
            command(read_run(made), good)
        except PdError:
            continue
        except Exception as error:
            broken.append(f"{command.__name__}: {where} = {wrong}: {error!r}")

    assert not broken, "\n".join(broken)


def test_a_whole_run_is_not_damaged(tmp_path):
    assert read_run(write(tmp_path / "good")).damaged == ()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("verdict.json", "", "bad/verdict.json: holds no JSON object"),
        ("results.jsonl", "x\n{}\n", "bad/results.jsonl: 1 of 2 lines cannot be"),
        ("local_1p1d/plan.json", "[]", "local_1p1d/plan.json: holds no JSON object"),
        (
            "local_1p1d/entries.jsonl",
            '{"fullname": "a", "data": ["x"]}\n',
            "local_1p1d/entries.jsonl: 1 of its figures cannot be read",
        ),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, capsys, name, text, told):
    made = write(tmp_path / "bad")
    (made / name).write_text(text)

    [line] = read_run(made).damaged
    files = files_of([read_run(made)], made)

    assert line.startswith(told)
    assert [told in files[n] for n in ("report.html", "summary.md")] == [True, True]
    assert main(["report", str(made)]) == 0
    assert f"damaged: {line}" in capsys.readouterr().err


def test_a_line_torn_by_a_kill_is_no_damage(tmp_path):
    made = write(tmp_path / "killed")
    with (made / "local_1p1d" / "entries.jsonl").open("a") as file:
        file.write('{"fullname": "b", "da')

    assert read_run(made).damaged == ()
