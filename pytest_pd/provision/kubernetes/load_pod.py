"""A pod that sends load from inside of the cluster: our instrument, nobody's image.

What runs in it comes as a ConfigMap: the load generator as one zip file, which Python
imports from. So any image with Python 3.11 and numpy will do, that of the engine for
one; it waits, and ``kubectl exec`` starts the load process in it.
"""

from __future__ import annotations

import base64
import io
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_pd
from pytest_pd.errors import ProvisionError
from pytest_pd.plan.model import Role
from pytest_pd.provision.kubernetes.names import LOAD, PART, Object
from pytest_pd.provision.kubernetes.pod import Setting
from pytest_pd.provision.kubernetes.state import PodState, hint_for

if TYPE_CHECKING:
    from pytest_pd.provision.kubernetes.allocation import Cluster

FOLDER, PROGRAM = "/run/pytest-pd-load", "load.zip"
WAIT = "import signal; signal.pause()"
STAMP = (1980, 1, 1, 0, 0, 0)
MEMORY = "4Gi"
LOOK_S = 1.0


def sources() -> Iterator[tuple[str, Path]]:
    """Yield name and file of every module that the load process imports."""
    root = Path(str(pytest_pd.__file__)).parent
    files = [
        root / "__init__.py",
        root / "errors.py",
        root / "files.py",
        root / "user.py",
        *sorted(root.glob("load/*.py")),
    ]
    for path in files:
        yield f"{root.name}/{path.relative_to(root)}", path


def program() -> bytes:
    """Return the load generator as a zip file, the same for the same sources."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sources():
            entry = zipfile.ZipInfo(name, STAMP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return sink.getvalue()


def name_of(setting: Setting) -> str:
    """Return the name of the load pod and of its program."""
    return f"{setting.scope.name}-load"


def image_of(setting: Setting) -> str | None:
    """Return the image: the site's, else that of the workers, which has numpy."""
    site = setting.site
    workers = [s.image for s in setting.plan.services if s.role is Role.DECODE]
    return site.load_image or site.image or next(filter(None, workers), None)


def is_wanted(setting: Setting) -> bool:
    """Whether load is sent by a pod, and not by the harness."""
    site = setting.site
    sends = site.reach != "direct" and site.load_from == "pod"
    return sends and image_of(setting) is not None


def load_objects(setting: Setting) -> list[Object]:
    """Return program and pod; none where the harness sends the load itself."""
    if not is_wanted(setting):
        return []
    name = name_of(setting)
    data = {PROGRAM: base64.b64encode(program()).decode()}
    configuration: Object = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": setting.scope.metadata(name),
        "binaryData": data,
    }
    return [configuration, pod(setting, name)]


def pod(setting: Setting, name: str) -> Object:
    """Return the pod, which does nothing by itself."""
    site, scope = setting.site, setting.scope
    meta = scope.metadata(name)
    meta["labels"] = {**site.labels, **scope.labels, PART: "load"}
    container: Object = {
        "name": LOAD,
        "image": image_of(setting),
        "command": [site.python, "-c", WAIT],
        "env": [
            {"name": "PYTHONPATH", "value": f"{FOLDER}/{PROGRAM}"},
            {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"},
        ],
        "volumeMounts": [{"name": "program", "mountPath": FOLDER}],
    }
    if not setting.plan.rehearsal:
        wanted = {"cpu": str(site.load_cpus), "memory": MEMORY}
        container["resources"] = {"limits": wanted, "requests": dict(wanted)}
    if site.image_pull_policy:
        container["imagePullPolicy"] = site.image_pull_policy
    placed: Object = {
        "nodeSelector": dict(site.node_selector),
        "tolerations": list(site.tolerations),
        "imagePullSecrets": [{"name": each} for each in site.image_pull_secrets],
    }
    body: Object = {
        "restartPolicy": "Never",
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "program", "configMap": {"name": name}}],
        **{key: value for key, value in placed.items() if value},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": body}


def start(cluster: Cluster, setting: Setting) -> tuple[str, ...]:
    """Apply the load pod, wait until it runs; return the words that run Python there.

    Empty where the harness sends the load itself.

    Raises:
        ProvisionError: it does not start, in the cluster's words.
    """
    objects = load_objects(setting)
    if not objects:
        return ()
    for each in objects:
        cluster.client.apply(each)
    name = name_of(setting)
    await_running(cluster, name)
    words = [*cluster.client.words, "exec", "-i", "-n", cluster.scope.namespace, name]
    return (*words, "-c", LOAD, "--", cluster.site.python)


def await_running(cluster: Cluster, name: str) -> None:
    """Wait until the pod runs.

    Raises:
        ProvisionError: it will not, with the reason.
    """
    end_s = time.monotonic() + cluster.site.schedule_s
    while not cluster.watch.wait(name, has_settled, LOOK_S):
        cluster.watch.check()
        if time.monotonic() > end_s:
            break
    state = cluster.watch.state(name) or PodState()
    if state.phase != "Running":
        raise ProvisionError(
            f"The load pod {name!r} does not run: {state.describe()}.",
            hint=hint_for("image" if "image" in state.hopeless else state.why)
            or "kubernetes.load_image names another image; kubernetes.load_from: "
            "port_forward does without the pod",
        )


def has_settled(state: PodState | None) -> bool:
    """Whether a pod runs, has ended, or will never run."""
    return state is not None and (state.phase != "Pending" or bool(state.hopeless))
