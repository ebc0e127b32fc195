"""The only package that starts things, and takes them away again."""

from __future__ import annotations

from pytest_pd.provision.base import Backend
from pytest_pd.registry import Registry

BACKENDS: Registry[type[Backend]] = Registry(
    "backend",
    {
        "local": "pytest_pd.provision.local:LocalBackend",
        "ssh": "pytest_pd.provision.ssh:SshBackend",
        "kubernetes": "pytest_pd.provision.kubernetes.backend:KubernetesBackend",
        "slurm": "pytest_pd.provision.slurm:SlurmBackend",
    },
    group="pytest_pd.backends",
)
"""Backend class by the name that a cluster file gives in ``backend``."""
