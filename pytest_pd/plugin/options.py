"""Options and ini keys. The installed plugin owns ``--pd-*`` names only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pytest_pd.complete import AppendTopology, StoreCluster


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its ``--pd-`` name, its plain alias if any, argparse settings."""

    name: str
    settings: dict[str, Any]
    alias: str = ""

    @property
    def dest(self) -> str:
        return "pd_" + self.name.replace("-", "_")


def _text(help_text: str, metavar: str) -> dict[str, Any]:
    return {"default": None, "metavar": metavar, "help": help_text}


def _flag(help_text: str) -> dict[str, Any]:
    return {"action": "store_true", "default": False, "help": help_text}


OPTIONS = (
    Option(
        "topology",
        {
            "action": AppendTopology,
            "default": None,
            "metavar": "NAME",
            "help": "topology name, path, glob or comma list; repeatable "
            "(default: local_1p1d)",
        },
        "topology",
    ),
    Option(
        "cluster",
        {"action": StoreCluster, **_text("cluster file: where to run", "NAME")},
        "cluster",
    ),
    Option(
        "level",
        {
            "choices": ("quick", "standard", "full"),
            "default": None,
            "help": "how much to run (default: what the topology names)",
        },
    ),
    Option("plan", _flag("print what would be started, and stop")),
    Option(
        "rehearse",
        _flag("run the same plan on this machine with the reference engine"),
        "rehearse",
    ),
    Option(
        "keep",
        {
            "nargs": "?",
            "const": "1h",
            "default": None,
            "metavar": "TIME",
            "help": "leave topologies up after the run, 1h unless told (--pd-keep=2h)",
        },
    ),
    Option(
        "attach",
        _text("run on a deployment that is up: a run id or a URL", "RUN_ID|URL"),
        "attach",
    ),
    Option(
        "attach-prefill",
        {
            "action": "append",
            "default": None,
            "metavar": "URL",
            "help": "prefill worker behind --attach URL; repeatable",
        },
        "attach-prefill",
    ),
    Option(
        "attach-decode",
        {
            "action": "append",
            "default": None,
            "metavar": "URL",
            "help": "decode worker behind --attach URL; repeatable",
        },
        "attach-decode",
    ),
    Option(
        "run-dir",
        _text("where to keep the run (default: runs/<utc>-<run id>)", "DIR"),
        "run-dir",
    ),
    Option("gate", _text("fail when slower than this gate file allows", "FILE")),
    Option("label", _text("label stored with every result", "TEXT")),
    Option("scenario", _text("refit scenarios to run, for example 1,6", "N,...")),
    Option("share-nodes", _flag("let measuring tests share nodes with others")),
)


def add_options(parser: pytest.Parser) -> None:
    """Register the ``--pd-*`` names and the ini keys."""
    group = parser.getgroup("pd", "prefill/decode disaggregation")
    for option in OPTIONS:
        group.addoption(f"--pd-{option.name}", dest=option.dest, **option.settings)
    parser.addini("pd_cluster", "cluster used when --cluster is not given")
    parser.addini("pd_topology_path", "folders with topology files", type="paths")
    parser.addini("pd_save", "save results after each run", type="bool", default=False)


def add_plain_options(parser: pytest.Parser) -> None:
    """Register the plain aliases (``--topology``); called by a project's conftest."""
    group = parser.getgroup("pd")
    for option in OPTIONS:
        if option.alias:
            group.addoption(f"--{option.alias}", dest=option.dest, **option.settings)
