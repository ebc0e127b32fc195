"""Every place of the package that removes a file or folder, and why it may."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pytest_pd.provision.rundir import prune

PACKAGE = Path(__file__).parents[2] / "pytest_pd"
TREES = {"rmtree", "removedirs"}

KNOWN = {
    "evals/runner.py": "a folder that holds the plan of a job that it made itself",
    "provision/kv_store.py": "prompts in a KV folder; refuses dangerous ones",
    "provision/rundir.py": "runs that `prune` was given",
    "evals/stored.py": "an older copy of the same samples in the cache",
    "provision/kube_local/folder.py": "folders of control planes whose owner is dead",
    "provision/kubernetes/client.py": "its own folder with the socket of kubectl",
    "provision/looking.py": "a run directory that it made for a preflight",
    "reference/shared_storage.py": "its own draft beside the KV that it writes",
    "refit/worker/opinion.py": "its own folder of tensors",
}
"""Files that remove whole trees. A new one is a decision: write its reason here."""


def removers() -> dict[str, set[str]]:
    """Return file to the calls in it that remove trees."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.split("/")[0] in ("fixtures", "suites"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in TREES:
                found.setdefault(name, set()).add(called.attr)
    return found


def test_trees_are_removed_in_known_places_only():
    assert set(removers()) == set(KNOWN)


@pytest.mark.parametrize("shape", ["inside", "itself"])
def test_pruning_follows_no_link_out_of_a_run(tmp_path, shape):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    run = tmp_path / "runs" / "20260101T000000Z-abcdefgh"
    if shape == "inside":
        run.mkdir(parents=True)
        (run / "link").symlink_to(outside)
    else:
        run.parent.mkdir()
        run.symlink_to(outside)

    prune([run], keep=0)

    assert (outside / "precious").read_text() == "x"
