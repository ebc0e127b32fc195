"""The images that really ran go into the plan of the run."""

from __future__ import annotations

import pytest

from pytest_pd.provision.running import Running
from tests.kit import plan_of, service

DIGEST = "vllm/vllm-openai@sha256:" + "a" * 64


class Pod:
    def __init__(self, image):
        self.image = image

    def identity(self):
        return {"pod": "x", "image": self.image} if self.image else {"pid": 1}


@pytest.mark.parametrize(
    ("asked", "runs", "noted"),
    [
        ("vllm/vllm-openai:latest", DIGEST, DIGEST),
        ("vllm/vllm-openai:latest", f"docker-pullable://{DIGEST}", DIGEST),
        ("vllm/vllm-openai:latest", "sha256:abc", "vllm/vllm-openai:latest"),
        ("vllm/vllm-openai:latest", "", "vllm/vllm-openai:latest"),
        (None, DIGEST, None),
    ],
)
def test_the_image_is_noted_by_its_digest(asked, runs, noted):
    running = Running({"one": Pod(runs)})

    plan = running.pinned(plan_of([service("one", "x", image=asked)]))
    assert plan.services[0].image == noted


def test_what_does_not_run_stays_as_it_was():
    plan = plan_of([service("one", "x", image="i:1")])

    assert Running().pinned(plan) == plan
