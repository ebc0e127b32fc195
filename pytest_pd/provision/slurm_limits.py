"""Would this job ever start? Numbers of the site against numbers of the plan. Pure.

Slurm takes some requests that can never run and leaves them pending for ever
(``PartitionNodeLimit``, ``PartitionTimeLimit``); they are refused before that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_pd.errors import ProvisionError, SpecError
from pytest_pd.provision.slurm_text import seconds_left
from pytest_pd.spec.site_slurm import SlurmSite

Record = Mapping[str, str]
OUT = ("DOWN", "DRAIN", "FAIL", "FUTURE")
SILENT = "NOT_RESPONDING"
MAINT = "MAINT"
"""A reservation keeps the node for maintenance, or for the job that names it."""
POWER = "POWER"
"""Saved or on its way (``POWERED_DOWN``, ``POWERING_UP``): a job boots the node."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a topology asks of a partition.

    Attributes:
        feature: Node feature that must be there, from the cluster's hardware;
            empty for none.
    """

    topology: str
    nodes: int
    gpus_per_node: int


def partition_of(site: SlurmSite, partitions: Sequence[Record]) -> Record:
    """Return the partition that the job would go to.

    Raises:
        SpecError: the site has no such partition, or no default one.
    """
    by_name = {p["PartitionName"]: p for p in partitions}
    if site.partition is None:
        for record in partitions:
            if record.get("Default") == "YES":
                return record
        raise SpecError(
            "Slurm has no default partition.",
            hint=f"set slurm.partition to one of {', '.join(sorted(by_name))}",
        )
    if site.partition not in by_name:
        raise SpecError.unknown("slurm.partition", site.partition, by_name)
    return by_name[site.partition]


def check_limits(
    site: SlurmSite,
    wanted: Wanted,
    partitions: Sequence[Record],
    nodes: Sequence[Record],
) -> None:
    """Refuse a request that would pend for ever.

    Args:
        partitions: Records of ``scontrol show partition``.
        nodes: Records of ``scontrol show node``.

    Raises:
        SpecError: the partition does not exist.
        ProvisionError: a limit would be passed; gives both numbers.
    """
    partition = partition_of(site, partitions)
    name = partition["PartitionName"]
    if partition.get("State", "UP") != "UP":
        raise ProvisionError(f"Partition {name!r} is {partition['State']}.")
    _check_time(site, partition)
    _check_node_limit(wanted, partition)
    members = [n for n in nodes if name in n.get("Partitions", "").split(",")]
    _check_members(site, wanted, name, members)


def _check_time(site: SlurmSite, partition: Record) -> None:
    most_s = seconds_left(partition.get("MaxTime", "UNLIMITED"))
    if most_s is not None and site.time_limit_min * 60 > most_s:
        raise ProvisionError(
            f"slurm.time_limit_min is {site.time_limit_min}; partition "
            f"{partition['PartitionName']!r} allows {most_s / 60:g} minutes.",
            hint="lower time_limit_min or choose another partition",
        )


def _check_node_limit(wanted: Wanted, partition: Record) -> None:
    for key, text in (("MaxNodes", "allows at most"), ("TotalNodes", "has")):
        most = partition.get(key, "")
        if most.isdigit() and wanted.nodes > int(most):
            raise ProvisionError(
                f"{wanted.topology} needs {wanted.nodes} nodes; partition "
                f"{partition['PartitionName']!r} {text} {most}.",
                hint="choose another partition or a smaller topology",
            )


def _check_members(
    site: SlurmSite, wanted: Wanted, name: str, members: Sequence[Record]
) -> None:
    """Count the nodes that fit, condition by condition."""
    story = [f"{len(members)} nodes in partition {name!r}"]
    fitting = [n for n in members if n.get("NodeName") not in site.exclude]
    if len(fitting) < len(members):
        story.append(f"{len(fitting)} of them not excluded")
    simple = re.fullmatch(r"[\w.-]+", site.constraint or "")
    if simple:
        fitting = [n for n in fitting if site.constraint in features(n)]
        story.append(f"{len(fitting)} of them with feature {site.constraint!r}")
    if site.gpus_by != "none" and wanted.gpus_per_node:
        gpus = wanted.gpus_per_node
        fitting = [n for n in fitting if gpus_of(n, site.gres) >= gpus]
        story.append(f"{len(fitting)} of them with {site.gres}:{gpus}")
    reserved = site.reservation is not None
    able = [n for n in fitting if not is_out(n, reserved=reserved)]
    if len(able) < len(fitting):
        story.append(f"{len(able)} of them not down or drained")
    if len(able) < wanted.nodes:
        raise ProvisionError(
            f"{wanted.topology} needs {wanted.nodes} nodes; there are "
            f"{', '.join(story)}.",
            hint=_hint(fitting, able, wanted),
        )


def _hint(fitting: Sequence[Record], able: Sequence[Record], wanted: Wanted) -> str:
    if len(fitting) >= wanted.nodes:
        out = ", ".join(n.get("NodeName", "?") for n in fitting if n not in able)
        return f"`sinfo -R` says why {out} cannot be used"
    return "see `sinfo -o '%P %D %f %G'`; correct the cluster file, or choose another"


def is_out(node: Record, *, reserved: bool = False) -> bool:
    """Whether a node can start no job at present.

    Args:
        reserved: The job names a reservation, so maintenance may be its own.
    """
    state = node.get("State", "").upper()
    words = re.split(r"[+*]", state)
    silent = state.endswith("*") or SILENT in words
    boots = any(word.startswith(POWER) for word in words)
    out = OUT if reserved else (*OUT, MAINT)
    return (silent and not boots) or any(word.startswith(out) for word in words)


def features(node: Record) -> frozenset[str]:
    """Return the features that a node offers."""
    text = node.get("AvailableFeatures", "")
    return frozenset(text.split(",")) if text not in ("", "(null)") else frozenset()


def gpus_of(node: Record, gres: str = "gpu") -> int:
    """Return how many of a resource a node has: ``gpu:4``, ``gpu:h100:8(S:0-1)``."""
    total = 0
    for part in _without_sockets(node.get("Gres", "")):
        kind, _, count = part.rpartition(":")
        if kind == gres or kind.startswith(f"{gres}:"):
            total += int(count) if count.isdigit() else 0
    return total


def _without_sockets(gres: str) -> Iterable[str]:
    return re.sub(r"\([^)]*\)", "", gres).split(",")
