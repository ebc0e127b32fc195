"""``plan.lock.yaml``: written, read back, and noticed when it was changed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_pd.errors import SpecError
from pytest_pd.plan.lock import lock_text
from pytest_pd.provision.compose import plan_deployment
from pytest_pd.spec.file import read_cluster, read_topologies, read_topology
from pytest_pd.spec.locate import find

TOPOLOGY = """\
name: mine
hardware: h100
model: {path: org/model, served_name: m}
engine: {kind: reference, args: [--note, "1e5", --text, "off: {{node}}"]}
kv_transfer: {connector: shared_storage, path: "{run_dir}/kv"}
prefill: {replicas: 2, tp: 2, env: {A: "0o17"}}
decode: {tp: 4}
router: {kind: proxy}
"""
CLUSTER = "name: c\nbackend: slurm\nhardware: h100\nnodes: 2\ngpus_per_node: 8\n"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(TOPOLOGY)
    (tmp_path / "c.yaml").write_text(CLUSTER)
    topology = read_topology(tmp_path / "mine.yaml")
    cluster = read_cluster(tmp_path / "c.yaml")
    path = tmp_path / "plan.lock.yaml"
    path.write_text(lock_text(plan_deployment(topology, cluster), topology, cluster))
    return path


def test_a_lock_gives_back_both_specifications(lock: Path) -> None:
    assert read_topology(lock) == read_topology(lock.parent / "mine.yaml")
    assert read_cluster(lock) == read_cluster(lock.parent / "c.yaml")
    assert len(read_topologies(lock)) == 1


def test_a_lock_makes_the_same_plan_again(lock: Path) -> None:
    first = plan_deployment(
        read_topology(lock.parent / "mine.yaml"), read_cluster(lock.parent / "c.yaml")
    )

    assert plan_deployment(read_topology(lock), read_cluster(lock)) == first


def test_a_lock_is_found_like_any_topology(lock: Path) -> None:
    (found,) = find("topologies", [str(lock)])

    assert read_topology(found.path, found.name).name == "mine"


def test_a_person_finds_the_plan_in_it(lock: Path) -> None:
    text = lock.read_text()

    assert "summary: 'mine: 2 nodes, 8 GPUs, 3 endpoints'" in text
    assert "name: prefill-0" in text


def change_topology(text: str) -> str:
    return text.replace("replicas: 2", "replicas: 1", 1)


def change_plan(text: str) -> str:
    return text.replace("logs/decode-0.log", "logs/decode-9.log")


def drop_digest(text: str) -> str:
    return text[: text.index("digest:")]


@pytest.mark.parametrize("change", [change_topology, change_plan, drop_digest])
def test_a_changed_lock_is_noticed(lock: Path, change: Callable[[str], str]) -> None:
    changed = change(lock.read_text())
    assert changed != lock.read_text()
    lock.write_text(changed)

    with pytest.raises(SpecError, match="was changed after it was written"):
        read_topology(lock)


def test_a_comment_is_no_change(lock: Path) -> None:
    lock.write_text("# kept for the release\n" + lock.read_text())

    assert read_topology(lock).name == "mine"


def test_a_lock_of_another_version_is_refused(lock: Path) -> None:
    lock.write_text(lock.read_text().replace("lock: 1\n", "lock: 2\n"))

    with pytest.raises(SpecError, match="a lock of version 2; this pytest-pd reads 1"):
        read_cluster(lock)
