"""Migration is judged where a command line promises it, and nowhere else."""

from __future__ import annotations

import pytest

from pytest_pd.plugin.facts import claims_migration
from tests.kit import plan_of, service


@pytest.mark.parametrize(
    ("words", "claimed"),
    [
        (("--migration-limit", "3"), True),
        (("--migration-limit", "0"), False),
        (("--migration-limit",), False),
        (("--migration-limit", "many"), False),
        (("--router-mode", "kv"), False),
        ((), False),
    ],
)
def test_a_limit_above_zero_is_a_promise(words, claimed):
    plan = plan_of([service("prefill-0", "vllm"), service("router", "python", *words)])

    assert claims_migration(plan) is claimed
