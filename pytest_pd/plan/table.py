"""The plan for a person: what starts where, what it costs, what must be seen."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence

from pytest_pd.plan.model import (
    WORKERS,
    DeploymentPlan,
    ExpectedEvidence,
    Role,
    ServicePlan,
)

HEADER = ("SERVICE", "ROLE", "NODE", "GPUS", "RANKS", "PORTS", "LOG")


def summary_line(plan: DeploymentPlan) -> str:
    """Return ``NAME: N nodes, G GPUs, E endpoints``; routers are not counted."""
    workers = sum(endpoint.role in WORKERS for endpoint in plan.endpoints)
    return (
        f"{plan.name}: {_count(len(plan.nodes), 'node')}, "
        f"{_count(plan.gpus, 'GPU')}, {_count(workers, 'endpoint')}"
    )


def render(plan: DeploymentPlan, *, commands: bool = False) -> str:
    """Return the whole plan as text.

    Args:
        commands: Show every command with its environment, and where each
            variable comes from.
    """
    parts = [
        summary_line(plan),
        "\n".join(_table([HEADER, *map(_row, plan.services)])),
        "\n".join(_facts(plan)),
    ]
    if commands:
        parts += ["\n".join(_command(plan, service)) for service in plan.services]
    return "\n\n".join(parts) + "\n"


def spans(numbers: Iterable[int]) -> str:
    """Return ascending runs: ``0-3,6``; ``-`` for none."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs) or "-"


def _row(service: ServicePlan) -> tuple[str, ...]:
    ports = " ".join(f"{purpose}:{port}" for purpose, port in service.ports.items())
    return (
        service.name,
        service.role.value,
        service.node,
        spans(service.gpu_ids),
        spans(service.ranks) if service.gpu_ids else "-",
        ports,
        service.log,
    )


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _facts(plan: DeploymentPlan) -> Iterator[str]:
    yield f"url        {plan.url}"
    for role in (*WORKERS, Role.ROUTER):
        for endpoint in plan.of_role(role):
            ranks = f"  dp ranks {spans(endpoint.ranks)}" if endpoint.ranks else ""
            yield f"{role.value:<10} {endpoint.url}{ranks}"
    yield f"model      {plan.served_model} ({plan.model_path})"
    yield f"engine     {plan.engine}"
    yield f"router     {plan.router or 'none'}"
    yield f"level      {plan.level}"
    yield f"expects    {expectation(plan.expected)}"
    yield f"costs      {_costs(plan)}"
    yield f"disk       {_bytes(plan.disk_bytes)} for logs and KV files"
    yield f"identity   {plan.identity}"
    for note in plan.notes:
        yield f"note       {note}"


def expectation(expected: ExpectedEvidence) -> str:
    """Return in one line what must be seen when the topology works."""
    if expected.transfer == "none":
        return "no KV hand-over"
    unit = "whole blocks" if expected.whole_blocks else "every token"
    parts = [f"{expected.transfer}: {unit} of each prompt"]
    if expected.block_tokens:
        parts.append(f"{expected.block_tokens} tokens per block")
    if expected.kv:
        parts.append(f"{expected.kv.bytes_per_token} KV bytes per token")
    else:
        parts.append("bytes unknown: no config.json here tells the shape of the KV")
    if not expected.true_tokens:
        parts.append("tokens are invented")
    return ", ".join(parts)


def _costs(plan: DeploymentPlan) -> str:
    stages = " + ".join(f"{name} {s:g} s" for name, s in plan.budgets_s.items())
    if not plan.gpus_held:
        return f"no GPU; at most {stages}"
    idle = plan.gpus_held - plan.gpus
    held = f"{plan.gpus_held} GPUs held ({idle} idle)" if idle else f"{plan.gpus} GPUs"
    return f"at most {plan.gpu_hours:.1f} GPU-hours: {held} x ({stages})"


def _command(plan: DeploymentPlan, service: ServicePlan) -> Iterator[str]:
    node = next(node for node in plan.nodes if node.name == service.node)
    yield f"# {service.name} on {node.name} ({node.address})"
    for name, value in sorted(service.env.items()):
        source = service.env_source.get(name, "plan")
        yield f"export {name}={shlex.quote(value)}  # {source}"
    for name in service.env_from_host:
        yield f"# {name}: passed on from this environment"
    for path in sorted(service.files):
        yield f"# writes {path}"
    yield shlex.join(service.argv)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _bytes(size: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
