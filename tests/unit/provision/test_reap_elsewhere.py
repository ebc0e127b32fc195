"""What lies elsewhere is ended by its backend, with the cluster it was started on."""

from __future__ import annotations

import pytest

from pytest_pd.provision import reap as module
from pytest_pd.provision.reap import end_run
from pytest_pd.provision.rundir import RunDir


class Elsewhere:
    """A backend that keeps jobs on a site."""

    asked: list = []  # noqa: RUF012

    def clean(self, cluster, context):
        self.asked.append((cluster.name, context.run_id, context.lease_ttl_s))


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "runtime").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setattr(Elsewhere, "asked", [])
    monkeypatch.setattr(module, "BACKENDS", {"elsewhere": Elsewhere, "local": object})
    made = RunDir(tmp_path / "20260101T000000Z-deadbeef" / "toy")
    made.create()
    return made


def test_a_backend_that_keeps_things_elsewhere_is_asked(run):
    run.write_manifest(
        run_id="deadbeef",
        backend="elsewhere",
        cluster={"name": "site", "backend": "local"},
        lease_ttl_s=120.0,
    )

    end_run(run.path.parent)

    assert Elsewhere.asked == [("site", "deadbeef", 120.0)]


def test_a_backend_of_this_machine_is_not(run):
    run.write_manifest(run_id="deadbeef", backend="local", lease_ttl_s=5.0)

    end_run(run.path.parent)

    assert Elsewhere.asked == []
    assert run.read_manifest()["ended_s"]
