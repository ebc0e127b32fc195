"""Workers are named by the router; a phase that was left out has no name."""

from __future__ import annotations

from pytest_pd.plan.seam import RouterWitness
from pytest_pd.probe.named import named_in

WITNESS = RouterWitness(headers=("x-pd-prefill-worker", "x-pd-decode-worker"))


def test_headers_name_both_workers():
    headers = {
        "x-pd-prefill-worker": "http://127.0.0.1:1",
        "x-pd-decode-worker": "http://127.0.0.1:2",
    }

    assert named_in(WITNESS, headers, {}) == ("127.0.0.1:1", "127.0.0.1:2")


def test_a_phase_that_was_left_out_is_not_a_worker_called_none():
    headers = {"x-pd-prefill-worker": "none", "x-pd-decode-worker": "127.0.0.1:2"}

    assert named_in(WITNESS, headers, {}) is None
