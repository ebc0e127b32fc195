"""What differs between two plans and environments, in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_pd.report.read import TopologyRecord

PLACE = ("address", "log", "url", "metrics_url", "target", "ports", "endpoints")
"""Parts of a plan that say where, not what."""
MADE_WITH = ("git_sha", "versions", "endpoint", "tokenizer")
"""What an entry says of how it was made."""
MOST_DIFFERENCES = 60


def differences(
    old: Sequence[TopologyRecord], new: Sequence[TopologyRecord]
) -> list[tuple[str, str, str]]:
    """Return (what, old, new) for the last record of each topology on both sides.

    Paths of the runs, addresses and ports are where, not what: they are left out.
    Sides that share no topology are told apart by their last ones.
    """
    if not old or not new:
        return []
    sides = [{topology.name: topology for topology in side} for side in (old, new)]
    names = [name for name in sides[0] if name in sides[1]]
    pairs = [(name, sides[0][name], sides[1][name]) for name in names]
    found = [
        (f"{name}: {what}" if len(pairs) > 1 else what, one, other)
        for name, first, second in pairs or [("", old[-1], new[-1])]
        for what, one, other in _between(first, second)
    ]
    return found[:MOST_DIFFERENCES]


def _between(
    first: TopologyRecord, second: TopologyRecord
) -> list[tuple[str, str, str]]:
    # a file of pytest-benchmark has no plan and no environment: nothing to compare
    whole = all(record.environment for record in (first, second))
    one, other = _facts(first, whole=whole), _facts(second, whole=whole)
    pools = [_services(record) if whole else {} for record in (first, second)]
    alone = pools[0].keys() ^ pools[1].keys()
    hidden = tuple(f"plan.services.{name}." for name in alone)
    names = [
        name
        for name in {**one, **other}
        if one.get(name) != other.get(name) and not name.startswith(hidden)
    ]
    told = {f"service {name}": name for name in sorted(alone)}
    one |= {words: pools[0].get(name, "–") for words, name in told.items()}
    other |= {words: pools[1].get(name, "–") for words, name in told.items()}
    return [(n, one.get(n, "–"), other.get(n, "–")) for n in [*names, *told]]


def _services(topology: TopologyRecord) -> dict[str, str]:
    services = topology.plan.get("services", ())
    return {str(s["name"]): f"{s.get('role')} on {s.get('node')}" for s in services}


def _facts(topology: TopologyRecord, *, whole: bool) -> dict[str, str]:
    if not whole:
        return _made_with(topology)
    environment = {
        key: value
        for key, value in topology.environment.items()
        if key not in ("variables", "load_average", "versions")
    }
    flat = {
        **flatten("plan", topology.plan),
        **flatten("environment", environment),
        **_made_with(topology),
    }
    run = str(topology.folder.resolve())
    return {name: text.replace(run, "{run}") for name, text in flat.items()}


def _made_with(topology: TopologyRecord) -> dict[str, str]:
    """Return how the entries were made: commit, versions, client, GPU clocks."""
    infos = [entry.info for entry in topology.entries]
    measured = next((info for info in infos if info.get("instrument")), {})
    first = measured or next(iter(infos), {})
    told = {key: first[key] for key in MADE_WITH if key in first}
    client = measured.get("instrument") or {}
    for key in ("engine", "stamp_source", "scheduling", "cores"):
        if key in client:
            told[f"client {key}"] = client[key]
    for gpu, seen in (client.get("gpus") or {}).items():
        clocks = (seen.get("sm_clock_mhz_min"), seen.get("sm_clock_mhz_max"))
        told[f"GPU {gpu} clock MHz"] = "{} to {}".format(*clocks)
        told[f"GPU {gpu} slowdowns"] = seen.get("slowdowns") or "none"
    return {
        k: v for name, value in told.items() for k, v in flatten(name, value).items()
    }


def flatten(name: str, value: Any) -> dict[str, str]:
    """Return dotted names to text for nested mappings; lists are joined."""
    if isinstance(value, Mapping):
        found: dict[str, str] = {}
        for key, inner in value.items():
            if key not in PLACE:
                found |= flatten(f"{name}.{key}", inner)
        return found
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        named = {str(v.get("name", i)): v for i, v in enumerate(value)}
        return flatten(name, named)
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return {name: text}
