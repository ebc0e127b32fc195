"""The GPUs of both phases work while requests run, as their driver says."""

from __future__ import annotations

import pytest

from pytest_pd.errors import EngineMissing
from pytest_pd.plan.model import Role
from pytest_pd.provision.rundir import RunDir

pytestmark = [
    pytest.mark.correctness,
    pytest.mark.pd_needs("disaggregated", "gpus"),
]

REQUESTS = 20
"""For each worker of a role: that all by chance pass one by is one in 10^8."""


def test_gpus_of_both_phases_work(ask, prompts, deployment):
    from pytest_pd.probe.gpu import sampled

    backend = RunDir(deployment.run_dir).read_manifest().get("backend")
    if backend != "local":
        pytest.skip(f"the GPUs are those of {backend} nodes; only this host's are seen")
    gpus = {
        role: [g for s in deployment.plan.services if s.role is role for g in s.gpu_ids]
        for role in (Role.PREFILL, Role.DECODE)
    }
    every = sorted({gpu for ids in gpus.values() for gpu in ids})
    most = REQUESTS * max(len(deployment.plan.of_role(role)) for role in gpus)
    try:
        with sampled(every) as use:
            for index in range(most):
                own = {"x-session-id": f"gpu{index}"}
                question = prompts.make(index, tokens=700)
                assert ask(question.text, max_tokens=64, headers=own).ok
                if index >= REQUESTS and all(map(use.peak, every)):
                    break
    except EngineMissing as error:
        pytest.skip(f"the GPUs are not this machine's, or not seen: {error.fact}")

    for role, ids in gpus.items():
        idle = [gpu for gpu in ids if not use.peak(gpu)]
        assert not idle, f"{role}: GPU {idle} did nothing while {most} requests ran"
