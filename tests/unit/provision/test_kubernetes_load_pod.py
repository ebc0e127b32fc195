"""The pod that sends load: what it brings along, and when there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from pytest_pd.plan.model import Role
from pytest_pd.provision.kubernetes import load_pod
from pytest_pd.provision.kubernetes.names import Scope
from pytest_pd.provision.kubernetes.pod import Setting
from pytest_pd.spec.site_kubernetes import KubernetesSite
from tests.kit import plan_of, service

SCOPE = Scope("r1", "toy", "ns")


def setting(*, engine_image="engine:1", **site):
    worker = service("decode-0", "x", image=engine_image)
    plan = plan_of([replace(worker, role=Role.DECODE)])
    return Setting(plan, KubernetesSite(**site), SCOPE, {})


def test_the_program_is_whole(tmp_path):
    path = tmp_path / "load.zip"
    path.write_bytes(load_pod.program())
    code = (
        "import runpy, sys, pytest_pd.load.shard_process as m\n"
        "print(m.__file__, file=sys.stderr)\n"
        "import pytest_pd.load.calibrate, pytest_pd.load.truth_process\n"
        "runpy.run_module('pytest_pd.load.shard_process', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input='{"ping": 1}\n',
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(path)},
    )

    assert str(path) in done.stderr.splitlines()[0]
    assert "clock_ns" in json.loads(done.stdout)


def test_the_program_fits_into_a_configmap_and_does_not_change():
    assert len(load_pod.program()) < 2**19
    assert load_pod.program() == load_pod.program()


@pytest.mark.parametrize(
    ("site", "image"),
    [
        ({}, "engine:1"),
        ({"image": "own:1"}, "own:1"),
        ({"image": "own:1", "load_image": "load:1"}, "load:1"),
    ],
)
def test_the_image_is_the_nearest_that_is_named(site, image):
    (_, pod) = load_pod.load_objects(setting(**site))

    assert pod["spec"]["containers"][0]["image"] == image


@pytest.mark.parametrize("site", [{"reach": "direct"}, {"load_from": "port_forward"}])
def test_there_is_none_where_the_harness_sends_the_load(site):
    assert load_pod.load_objects(setting(**site)) == []


def test_there_is_none_without_an_image():
    assert load_pod.load_objects(setting(engine_image=None)) == []
