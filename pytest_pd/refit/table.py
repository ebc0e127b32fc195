"""Plans as text: the table of all scenarios and the page of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pytest_pd.refit.bound import GB
from pytest_pd.refit.plan import (
    RefitPlan,
    bound_order,
    claimed_order,
    memory_refusal,
)
from pytest_pd.refit.tensors import parameters, tensor_kinds

HEADER = (
    "#",
    "source -> target",
    "mode",
    "method",
    "ranks",
    "experts",
    "need GB",
    "lack GB",
    "sum TB",
    "NIC in GB",
    "bound ms",
    "in/out/gpu",
    "pull ms",
    "claim ms",
    "verdict",
)


def ms(seconds: float) -> str:
    """Return whole milliseconds, or one digit more below 1 ms."""
    return f"{seconds * 1e3:.0f}" if seconds >= 1e-3 else f"{seconds * 1e3:.3f}"


def _row(plan: RefitPlan) -> tuple[str, ...]:
    s, b = plan.scenario, plan.bound
    idle = f"+{len(s.idle_ranks)} idle" if s.idle_ranks else ""
    before, after = plan.experts_per_group
    claim = "{:g}-{:g}".format(*s.claimed_ms) if s.claimed_ms else ""
    return (
        s.label,
        f"{s.source}->{s.target}",
        s.mode,
        s.method,
        f"{s.used_ranks}{idle}",
        f"{before}->{after}" if plan.model.experts else "-",
        f"{b.need_gb:.2f}",
        f"{b.missing_gb:.2f}",
        f"{b.total_gb / 1e3:.2f}",
        f"{b.domain_in_gb:.2f}",
        ms(b.bound_s),
        f"{b.in_s * 1e3:.0f}/{b.out_s * 1e3:.0f}/{b.gpu_s * 1e3:.0f}",
        ms(b.pull_s),
        claim,
        plan.verdict.upper() if plan.verdict == "impossible" else plan.verdict,
    )


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def overview(plans: Sequence[RefitPlan]) -> str:
    """Return the table of all plans, the orders and the notes."""
    first = plans[0]
    total = sum(parameters(tensor_kinds(first.model)).values())
    terabytes = total * first.element_bytes / 1e12
    head = (
        f"{first.model.name}: {total:,} parameters, {terabytes:.3f} TB in "
        f"{first.scenario.dtype}; {first.cluster.name}: {first.cluster.domain_gpus} "
        f"GPUs per scale-up domain at {first.cluster.scale_up_gbyte_s:g} GB/s, NIC "
        f"{first.cluster.nic_gbyte_s:g} GB/s per GPU"
    )
    lines = [head, "", align([HEADER, *map(_row, plans)]), ""]
    if len(plans) > 1:
        lines.append(f"order by bound:  {bound_order(plans)}")
        if claims := claimed_order(plans):
            lines.append(f"order by claim:  {claims}")
    lines += list(_notes(plans))
    return "\n".join(lines)


def _notes(plans: Sequence[RefitPlan]) -> Iterator[str]:
    for plan in plans:
        idle = plan.scenario.idle_ranks
        if idle:
            yield (
                f"scenario {plan.scenario.id}: Megatron starts only with a multiple of "
                f"etp x ep x pp = {plan.scenario.source.launch_unit} ranks, so "
                f"{plan.scenario.world_ranks} are launched; ranks {idle.start}-"
                f"{idle.stop - 1} are idle."
            )
    for plan in plans:
        if refusal := memory_refusal(plan):
            yield refusal


def page(plan: RefitPlan) -> str:
    """Return all figures of one plan."""
    width, gb = plan.cluster.domain_gpus, plan.element_bytes / GB
    traffic = plan.traffic
    crossing, inside = traffic.crossing(width) * gb, traffic.inside(width) * gb
    rows = [
        ("messages", f"{int(traffic.messages.sum()):,}"),
        ("  of them between ranks", f"{traffic.remote_messages():,}"),
        ("NIC in, fullest GPU", f"{crossing.sum(axis=0).max():.2f} GB"),
        ("NIC out, fullest GPU", f"{crossing.sum(axis=1).max():.2f} GB"),
        ("NIC, all", f"{crossing.sum() / 1e3:.3f} TB"),
        ("scale-up in, fullest GPU", f"{inside.sum(axis=0).max():.2f} GB"),
        ("copied inside GPUs", f"{traffic.local * gb / 1e3:.3f} TB"),
        ("source, fullest GPU", f"{plan.memory.source_gb:.2f} GB"),
        ("target, fullest GPU", f"{plan.memory.target_gb:.2f} GB"),
        ("staging, fullest GPU", f"{plan.memory.staging_gb:.2f} GB"),
        ("peak, fullest GPU", f"{plan.memory.peak_gb:.2f} GB"),
    ]
    groups = [
        (f"  {name}", f"{count:,}")
        for name, count in parameters(tensor_kinds(plan.model)).items()
    ]
    return "\n".join(
        [
            overview([plan]),
            "",
            f"scenario {plan.scenario.id}: {plan.scenario.purpose}",
            align(rows),
            "parameters",
            align(groups),
        ]
    )
