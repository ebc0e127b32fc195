"""The ``--kv-transfer-config`` of vLLM: connector names by version, roles, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pytest_pd.engines.version import Version
from pytest_pd.errors import SpecError
from pytest_pd.plan.model import Role
from pytest_pd.spec.pool import PoolSpec
from pytest_pd.spec.topology import KvTransferSpec

EXAMPLE_SINCE: Version = (0, 13)
"""First release in which SharedStorageConnector is called ExampleConnector."""

DROPPED_SINCE: Version = (0, 32)
"""A release that refuses the keys of `DROPPED`; the first one is not known."""

DROPPED = ("kv_buffer_size", "kv_parallel_size", "kv_rank", "kv_ip")
SHARED_STORAGE = ("SharedStorageConnector", "ExampleConnector")
NIXL = ("NixlConnector", "NixlPullConnector", "NixlPushConnector")
ROLES = {Role.PREFILL: "kv_producer", Role.DECODE: "kv_consumer"}


def connector(name: str, version: Version) -> str:
    """Return vLLM's class name for a connector of our vocabulary.

    ``shared_storage`` and ``nixl`` are ours; every other name is vLLM's own and
    stays, except that the old and new name of the shared-storage connector mean
    the same, so that an old recipe runs on a new release.
    """
    if name == "nixl":
        return "NixlConnector"
    if name == "shared_storage" or name in SHARED_STORAGE:
        return SHARED_STORAGE[version >= EXAMPLE_SINCE]
    return name


def is_nixl(spec: KvTransferSpec | None) -> bool:
    """Tell whether KV is pulled or pushed by NIXL, alone or as a member."""
    if spec is None:
        return False
    names = (spec.connector, *(member.connector for member in spec.connectors))
    return any(name == "nixl" or name in NIXL for name in names)


def is_shared_storage(spec: KvTransferSpec | None) -> bool:
    """Tell whether KV goes through files that both sides can read."""
    if spec is None:
        return False
    return spec.connector == "shared_storage" or spec.connector in SHARED_STORAGE


def check(spec: KvTransferSpec, version: Version) -> tuple[str, ...]:
    """Refuse transfer settings that cannot work; return notes.

    Raises:
        SpecError: with what to write instead.
    """
    if is_shared_storage(spec) and not spec.path:
        raise SpecError(
            f"kv_transfer.connector {spec.connector!r} needs kv_transfer.path, a "
            "folder that prefill and decode both see.",
            hint='for one machine: path: "{run_dir}/kv"',
        )
    if is_nixl(spec) and "engine_id" in spec.config:
        raise SpecError(
            "kv_transfer.config.engine_id would give prefill and decode the same NIXL "
            "engine id, and decode could not tell them apart.",
            hint="remove it: vLLM draws one per engine",
        )
    for name in ("runtime", "buffer_tokens", "timeout_ms"):
        if getattr(spec, name) is not None:
            raise SpecError(
                f"kv_transfer.{name} means nothing to vLLM.",
                hint="write what the connector knows below kv_transfer.config",
            )
    return tuple(_notes(spec, version))


def _notes(spec: KvTransferSpec, version: Version) -> list[str]:
    notes = []
    name = connector(spec.connector, version)
    if spec.connector in SHARED_STORAGE and name != spec.connector:
        notes.append(
            f"{spec.connector} is written as {name}: SharedStorageConnector was "
            "renamed ExampleConnector in vLLM 0.13."
        )
    if gone := _gone(spec.config, version):
        release = ".".join(map(str, version))
        notes.append(
            f"kv_transfer.config {', '.join(gone)}: left out, vLLM {release} refuses "
            "them as unexpected."
        )
    return notes


def _gone(config: Mapping[str, Any], version: Version) -> list[str]:
    return [key for key in DROPPED if key in config and version >= DROPPED_SINCE]


def transfer_config(
    spec: KvTransferSpec, role: Role, pool: PoolSpec, version: Version, *, cpu: bool
) -> str | None:
    """Return the JSON of ``--kv-transfer-config``, or None for other roles.

    Args:
        cpu: KV lies in host memory; NIXL has to be told.
    """
    if role not in ROLES:
        return None
    kv_role = f"kv_{pool.kv_role}" if pool.kv_role else ROLES[role]
    config: dict[str, Any] = {
        "kv_connector": connector(spec.connector, version),
        "kv_role": kv_role,
    }
    extra: dict[str, Any] = {}
    if is_shared_storage(spec):
        extra["shared_storage_path"] = spec.path
    if is_nixl(spec) and cpu:
        config["kv_buffer_device"] = "cpu"
    if spec.backend or (is_nixl(spec) and cpu):
        extra["backends"] = [spec.backend or "UCX"]
    if spec.connectors:
        extra["connectors"] = _members(spec, kv_role, version)
    given = {
        k: v for k, v in spec.config.items() if k not in _gone(spec.config, version)
    }
    extra |= given.pop("kv_connector_extra_config", {})
    config |= given
    if extra:
        config["kv_connector_extra_config"] = extra
    return json.dumps(config)


def _members(spec: KvTransferSpec, kv_role: str, version: Version) -> list[Any]:
    return [
        {
            "kv_connector": connector(member.connector, version),
            "kv_role": kv_role,
            **member.config,
        }
        for member in spec.connectors
    ]
