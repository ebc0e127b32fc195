"""What can be known before anything is started: on this machine, for one plan."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from pytest_pd.errors import PdError
from pytest_pd.installer.paths import find_program
from pytest_pd.plan.model import DeploymentPlan
from pytest_pd.provision import kv_store
from pytest_pd.provision.base import Finding
from pytest_pd.provision.ports import can_bind, holder_of

FILES_PER_SERVICE = 4096
GIB = 2**30
ASK_S = 20.0


def harness_findings(plan: DeploymentPlan, run_dir: Path) -> Iterator[Finding]:
    """Look at what the harness itself needs: a run directory with room in it."""
    place = next((p for p in (run_dir, *run_dir.parents) if p.exists()), Path("/"))
    if os.access(place, os.W_OK):
        yield Finding("run directory", True, str(run_dir))
    else:
        yield Finding(
            "run directory",
            False,
            f"{place} cannot be written",
            "choose another with --run-dir",
        )
    free = shutil.disk_usage(place).free
    yield Finding(
        "disk",
        free >= plan.disk_bytes,
        f"{free / GIB:.1f} GiB free, {plan.disk_bytes / GIB:.2f} GiB needed",
        "" if free >= plan.disk_bytes else "pytest-pd prune, or another --run-dir",
    )


def local_findings(
    plan: DeploymentPlan, addresses: Mapping[str, str]
) -> Iterator[Finding]:
    """Look at this machine as every node of the plan.

    Args:
        addresses: Planned node name to loopback address.
    """
    yield from programs(plan)
    yield from ports(plan, addresses)
    yield open_files(plan)
    yield from storage(plan)
    if plan.gpus and not plan.rehearsal:
        yield gpus(plan)


def programs(plan: DeploymentPlan) -> Iterator[Finding]:
    """Look for the program of every service, each once."""
    for word in dict.fromkeys(service.argv[0] for service in plan.services):
        found = find_program(word)
        users = [s.name for s in plan.services if s.argv[0] == word]
        yield Finding(
            f"program {word}",
            found is not None,
            found or f"not found, and {', '.join(users)} need it",
            "" if found else "pytest-pd engines says how it is installed",
        )


def ports(plan: DeploymentPlan, addresses: Mapping[str, str]) -> Iterator[Finding]:
    """Try every port that the plan names; name those that are taken.

    Only the topology knows which of them may move, so none is a failure yet.
    """
    wanted = [(s, port) for s in plan.services for port in s.ports.values()]
    taken = [(s, p) for s, p in wanted if not can_bind(addresses[s.node], p)]
    yield Finding(
        "ports", True, f"{len(wanted) - len(taken)} of {len(wanted)} are free"
    )
    for service, port in taken:
        yield Finding(
            f"{service.name}: port {port}",
            None,
            f"in use by {holder_of(port)}",
            "another is taken unless the topology fixes it",
        )


def storage(plan: DeploymentPlan) -> Iterator[Finding]:
    """Write and read the folder that KV goes through, unless the run makes it."""
    path = Path(plan.expected.kv_path or ".")
    if path.is_absolute():
        yield kv_store.look(path)


def open_files(plan: DeploymentPlan) -> Finding:
    """Compare the limit of open files with what servers under load need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft >= FILES_PER_SERVICE
    return Finding(
        "open files",
        True if enough else None,
        f"limit {soft}, at most {hard}",
        "" if enough else f"ulimit -n {FILES_PER_SERVICE} before large loads",
    )


def gpus(plan: DeploymentPlan) -> Finding:
    """Count the GPUs that the driver shows."""
    count = count_gpus()
    if count is None:
        return Finding("GPUs", False, "nvidia-smi does not answer", "is a driver here?")
    return Finding(
        "GPUs",
        count >= plan.gpus,
        f"{count} here, {plan.gpus} needed",
        "" if count >= plan.gpus else "choose a smaller topology, or --rehearse",
    )


def count_gpus() -> int | None:
    """Return how many NVIDIA GPUs there are; None when nobody can say."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=ASK_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return len(done.stdout.split())


def refused(error: PdError) -> Finding:
    """Turn the refusal of a backend into a finding."""
    return Finding("cluster", False, error.fact, error.hint)
