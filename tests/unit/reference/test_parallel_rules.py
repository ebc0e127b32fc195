"""vLLM's rules for parallel flags: what a process is, and what cannot be."""

from __future__ import annotations

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.reference import flags
from pytest_pd.reference.parallel import Parallel, read_parallel


def read(words: str) -> Parallel:
    return read_parallel(flags.parse(["m", *words.split()]))


HYBRID = "--data-parallel-size 8 --data-parallel-size-local 4 --data-parallel-hybrid-lb"


@pytest.mark.parametrize(
    ("words", "ranks"),
    [
        ("", (0,)),
        ("-tp 8", (0,)),
        ("--data-parallel-size 4", (0, 1, 2, 3)),
        (HYBRID, (0, 1, 2, 3)),
        (f"{HYBRID} --data-parallel-start-rank 4", (4, 5, 6, 7)),
        (
            "-dp 8 --data-parallel-size-local 4 --data-parallel-start-rank 4",
            (4, 5, 6, 7),
        ),
        ("-dp 4 --data-parallel-external-lb --data-parallel-rank 2", (2,)),
        ("-dp 4 --data-parallel-rank 3", (3,)),
        ("-dp 4 --data-parallel-size-local 2", (0, 1, 2, 3)),
        ("-tp 8 --nnodes 2 --node-rank 0", (0,)),
    ],
)
def test_ranks_are_global(words: str, ranks: tuple[int, ...]):
    assert read(words).ranks == ranks


def test_a_headless_follower_serves_nothing():
    found = read("-tp 8 --nnodes 2 --node-rank 1 --headless")

    assert found == Parallel((), 1, headless=True, follower=True)


def test_headless_ranks_of_an_instance_serve_nothing():
    found = read(
        "-dp 4 --data-parallel-size-local 2 --data-parallel-start-rank 2 --headless"
    )

    assert found.headless
    assert not found.follower


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            f"{HYBRID} --headless",
            "data_parallel_hybrid_lb is not applicable in headless",
        ),
        ("-dp 4 --data-parallel-rank 1 --headless", "external_lb is not applicable"),
        (
            "-tp 8 --nnodes 2 --node-rank 0 --data-parallel-hybrid-lb",
            "data_parallel_external_lb can only be set when data_parallel_size > 1",
        ),
        (
            "-tp 8 --data-parallel-size-local 1 --data-parallel-hybrid-lb",
            "data_parallel_external_lb can only be set when data_parallel_size > 1",
        ),
        ("-tp 8 --nnodes 2 --node-rank 1", "cannot have an API server"),
        ("-tp 3 --nnodes 2 --node-rank 0", "evenly divide"),
        ("-tp 8 --nnodes 2 --node-rank 2", "between 0 and 1"),
        ("-dp 4 --data-parallel-hybrid-lb", "requires `--data-parallel-size-local`"),
        (f"{HYBRID} --data-parallel-external-lb", "more than one"),
        (f"{HYBRID} --data-parallel-rank 1", "more than one"),
        (f"{HYBRID} --data-parallel-start-rank 6", "exceed data_parallel_size 8"),
        ("--headless --api-server-count 2", "--api-server-count=2"),
        (
            "-dp 4 --data-parallel-rank 1 --data-parallel-size-local 2",
            "requires `--data-parallel-size-local 1`",
        ),
        ("-dp 2 --data-parallel-multi-port-external-lb", "several ports"),
        (
            "-dp 4 --data-parallel-size-local 2 -tp 2 --nnodes 1 "
            "--data-parallel-external-lb --data-parallel-hybrid-lb",
            "more than one",
        ),
    ],
)
def test_contradictions_are_refused(words: str, message: str):
    with pytest.raises(SpecError) as caught:
        read(words)

    assert message in caught.value.fact
    assert caught.value.hint


def test_replicas_must_fill_the_nodes():
    words = "-dp 8 --data-parallel-size-local 2 -tp 3 --nnodes 6 --node-rank 0"

    with pytest.raises(SpecError, match="must be divisible by the number"):
        read(words)
