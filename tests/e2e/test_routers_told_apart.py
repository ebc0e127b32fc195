"""Two real routers of unlike policy before like workers: ``pytest-pd compare`` says
which one knows the prefix caches."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from pytest_pd.cli import main
from tests.real_engine import brought_up, needs, spec_of

pytestmark = pytest.mark.timeout(300)
SHARED = """name: shared
isl_shared: 768
isl_unique: 64
shared_prefixes: 16
output_tokens: 8
concurrency: [4]
requests: 80
error_share: 0.5
"""


def test_a_router_that_knows_caches_answers_sooner_on_shared_prefixes(tmp_path, capsys):
    """Sixteen groups fill the cache of one worker: who spreads them computes again."""
    base = spec_of("local_1p1d_vllm_router")
    needs("vllm-router", base)
    workload = tmp_path / "shared.yaml"
    workload.write_text(SHARED)
    with ExitStack() as stack:
        urls = [
            stack.enter_context(brought_up(with_policy(base, policy), tmp_path)).url
            for policy in ("cache_aware", "random")
        ]
        main(["compare", *urls, "--workload", str(workload), "--rounds", "2"])

    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if "::ttft " in line]
    assert row.startswith("| worse"), said


def with_policy(base, policy):
    """Return `base` with 4P1D and another policy of the router."""
    prefill = base.prefill.model_copy(update={"replicas": 4})
    router = base.router.model_copy(update={"policy": policy})
    update = {"name": policy, "prefill": prefill, "router": router}
    return base.model_copy(update=update)
