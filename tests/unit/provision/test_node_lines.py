"""Lines of several nodes become facts, however srun mixes them."""

import io
import sys

from pytest_pd.provision import node_facts
from pytest_pd.provision.node_lines import read_facts


def said(monkeypatch, node):
    """Return the lines of a node with eight GPUs."""
    facts = {"node": node, "gpus": [{"uuid": f"{node}-{n}" * 9} for n in range(8)]}
    out = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(node_facts, "facts", lambda request: facts)
        patch.setattr(sys, "stdin", io.StringIO("{}"))
        patch.setattr(sys, "stdout", out)
        assert node_facts.main() == 0
    return out.getvalue().splitlines()


def test_mixed_lines_are_put_together_by_node(monkeypatch):
    lines = zip(said(monkeypatch, "n01"), said(monkeypatch, "n02"), strict=True)
    mixed = [line for pair in lines for line in pair]

    found = read_facts("\n".join(["srun: a warning", *mixed]))

    assert {name: facts["node"] for name, facts in found.items()} == {
        "n01": "n01",
        "n02": "n02",
    }
    assert found["n02"]["gpus"][7]["uuid"] == "n02-7" * 9


def test_no_line_is_longer_than_srun_keeps_whole(monkeypatch):
    lines = said(monkeypatch, "n01")

    assert len(lines) > 1
    assert max(map(len, lines)) < 1024
