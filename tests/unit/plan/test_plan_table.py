"""The printed plan."""

from collections.abc import Callable

import pytest

from pytest_pd.plan.model import DeploymentPlan, ExpectedEvidence, KvShape
from pytest_pd.plan.table import expectation, render, spans, summary_line

Plan = Callable[..., DeploymentPlan]


def test_the_first_line_counts_nodes_gpus_and_worker_endpoints(plan: Plan) -> None:
    deployment = plan(
        nodes=7,
        gpus=4,
        prefill={"replicas": 2, "dp": 8, "dp_mode": "hybrid"},
        decode={"dp": 8, "dp_mode": "hybrid"},
        router={"kind": "plain", "node": "own"},
    )

    assert summary_line(deployment) == "t: 7 nodes, 24 GPUs, 6 endpoints"
    assert render(deployment).startswith("t: 7 nodes, 24 GPUs, 6 endpoints\n")


def test_one_of_a_thing_is_no_plural(plan: Plan) -> None:
    assert summary_line(plan(aggregated={}, router=None)) == (
        "t: 1 node, 1 GPU, 1 endpoint"
    )


def test_rows_show_local_gpu_ids_and_ranks_of_the_replica(plan: Plan) -> None:
    text = render(plan(gpus=4, aggregated={"tp": 8}, router=None))
    rows = [
        line.split() for line in text.splitlines() if line.startswith("aggregated-")
    ]

    assert [row[:5] for row in rows] == [
        ["aggregated-0-0", "aggregated", "node0", "0-3", "0-3"],
        ["aggregated-0-1", "aggregated", "node1", "0-3", "4-7"],
    ]


def test_idle_gpus_are_in_the_bill(plan: Plan) -> None:
    assert "8 GPUs held (6 idle)" in render(plan(aggregated={"tp": 2}, router=None))


def test_commands_show_where_each_variable_comes_from(plan: Plan) -> None:
    text = render(
        plan(
            prefill={"env": {"A": "x y"}, "env_from_host": ["HF_TOKEN"]},
            decode={"args": ["--name", "a b"]},
            control_plane={"services": ["nats"], "nats_max_payload_mb": 1},
        ),
        commands=True,
    )

    assert "export A='x y'  # prefill.env" in text
    assert "# HF_TOKEN: passed on from this environment" in text
    assert "serve --name 'a b'" in text
    assert "# writes nats.conf" in text


def test_commands_are_left_out_unless_asked_for(plan: Plan) -> None:
    assert "export" not in render(plan())


def test_notes_are_printed(plan: Plan) -> None:
    assert "note       Roles share node0" in render(plan(nodes=1))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((), "-"),
        ((3,), "3"),
        ((0, 1), "0-1"),
        ((0, 1, 2, 3), "0-3"),
        ((0, 2, 3, 7), "0,2-3,7"),
        ((3, 1, 2), "1-3"),
    ],
)
def test_runs_of_numbers(numbers: tuple[int, ...], text: str) -> None:
    assert spans(numbers) == text


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (ExpectedEvidence(None, None, "none", whole_blocks=False), "no KV hand-over"),
        (
            ExpectedEvidence(KvShape(5, 2, 64, 2), 16, "pull", whole_blocks=False),
            "pull: every token of each prompt, 16 tokens per block, "
            "2560 KV bytes per token",
        ),
        (
            ExpectedEvidence(
                None, None, "shared_storage", whole_blocks=True, true_tokens=False
            ),
            "shared_storage: whole blocks of each prompt, bytes unknown: no "
            "config.json here tells the shape of the KV, tokens are invented",
        ),
    ],
)
def test_what_must_be_seen_in_one_line(expected: ExpectedEvidence, text: str) -> None:
    assert expectation(expected) == text
