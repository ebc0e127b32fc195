"""The only place that knows pytest-benchmark's inside: two names, tested.

Entries travel on test reports to the controller, which appends them to the
session list of pytest-benchmark. One path with and without xdist; everything
after it (JSON, storage, table, compare, compare-fail) is pytest-benchmark's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_benchmark.stats import Metadata

OWNER_FIELDS = ("name", "fullname", "group", "param", "params", "extra_info")


def append_entries(
    config: pytest.Config, entries: Iterable[Mapping[str, Any]], *, failed: bool
) -> None:
    """Hand finished samples to pytest-benchmark, if it is there and wanted.

    Args:
        failed: Entries of a failed test are kept out of saved results, as
            pytest-benchmark does with its own.
    """
    session = config.pluginmanager.get_plugin("pytest-benchmark")
    if session is None or not recording(config):
        return
    for entry in entries:
        session.benchmarks.append(_metadata(entry, failed=failed))


def recording(config: pytest.Config) -> bool:
    """Tell whether the user's ``--benchmark-*`` options let results be kept."""
    option = config.getoption
    if option("benchmark_skip", False):
        return False
    disabled = option("benchmark_disable", False)
    return not disabled or bool(option("benchmark_enable", False))


def _metadata(entry: Mapping[str, Any], *, failed: bool) -> Metadata:
    owner = SimpleNamespace(
        cprofile_stats=None,
        has_error=failed,
        **{field: entry[field] for field in OWNER_FIELDS},
    )
    made = Metadata(  # type: ignore[no-untyped-call]
        owner, iterations=entry["iterations"], options={"timer": "external"}
    )
    made.stats.data.extend(entry["data"])
    return made
