"""Where the programs of a control plane lie: the convention of envtest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pytest_pd.errors import BackendMissing

VARIABLE = "KUBEBUILDER_ASSETS"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager")


def missing() -> str:
    """Return why no control plane can run here; empty when it can."""
    folder = os.environ.get(VARIABLE, "")
    if not folder:
        return f"{VARIABLE} names no folder with {', '.join(PROGRAMS)}"
    absent = [name for name in PROGRAMS if not os.access(Path(folder) / name, os.X_OK)]
    if absent:
        return f"{VARIABLE}={folder} has no {', '.join(absent)}"
    return "" if kubectl() else "kubectl is not on PATH"


def kubectl() -> str:
    """Return the kubectl to use: on PATH, else beside the others; empty for none."""
    folder = os.environ.get(VARIABLE, "")
    return shutil.which("kubectl") or shutil.which("kubectl", path=folder) or ""


def find_assets() -> Path:
    """Return the folder of the programs.

    Raises:
        BackendMissing: it is not named, or something is not in it.
    """
    if why := missing():
        raise BackendMissing(
            f"No local control plane: {why}.",
            hint=f"export {VARIABLE}=DIR, as setup-envtest prints it, or build one "
            "as docs/how-to/kubernetes.md says",
        )
    return Path(os.environ[VARIABLE])
