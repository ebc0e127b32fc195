"""``pytest-pd load`` against a server that none of us wrote: Dynamo with its mocker."""

from __future__ import annotations

import json

import pytest

from pytest_pd.cli import main
from tests.real_engine import brought_up, needs, spec_of

pytestmark = pytest.mark.timeout(180)
CLOSED = ["--concurrency", "2"]
SMALL = ["--requests", "8", "--input-tokens", "48", "--output-tokens", "12"]
CASES = {
    "tokenizer": ["--model-dir", "{model}"],
    "token ids": [],
    "chat": ["--endpoint", "chat"],
    "open loop": ["--rate", "10"],
    "two shards": ["--shards", "2", "--model-dir", "{model}"],
    "httpx": ["--engine", "httpx", "--model-dir", "{model}"],
}
COUNTED_BY = {
    "tokenizer": "word list of tokenizer.json",
    "token ids": "token ids",
    "chat": "usage in the server's answers",
}


def test_every_way_of_asking_works(tmp_path):
    topology = spec_of("dynamo_mock_1p1d")
    needs("dynamo", topology)
    with brought_up(topology, tmp_path / "run") as deployment:
        for name, words in CASES.items():
            file = tmp_path / f"{name}.json"
            options = [w.format(model=deployment.plan.model_path) for w in words]
            options += [*SMALL, *([] if name == "open loop" else CLOSED)]
            options += ["--no-calibrate", "--quiet", "--json", str(file)]

            code = main(["load", deployment.url, *options])

            (point,) = json.loads(file.read_text())
            run = point["run"]
            # a busy machine sends late
            late = [why for why in point["reasons"] if why.startswith("requests were")]
            assert point["reasons"] == late, name
            assert code == (1 if late else 0), name
            assert point["outcomes"] == {"ok": 8}
            assert run["output_tokens_mean"] == 12
            # Dynamo puts no special token in front, whatever the tokenizer says
            assert run["input_tokens_mean"] in (47, 48)
            assert run["instrument"]["stamp_source"] == "kernel"
            if name in COUNTED_BY:
                assert run["tokenizer"] == COUNTED_BY[name]
