"""A topology as a drawing: router, pools, the path of the KV cache. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 640, 210
BOX_W, BOX_H = 190, 64
PLACES = {
    "router": (20, 73),
    "prefill": (260, 14),
    "decode": (260, 132),
    "aggregated": (260, 73),
}


def draw_topology(plan: Mapping[str, Any]) -> str:
    """Return an ``<svg>`` of a plan as it lies in ``plan.json``.

    One box for each role: how many services, on how many nodes, with which GPUs.
    """
    services = plan.get("services", ())
    roles = [role for role in PLACES if any(s.get("role") == role for s in services)]
    if not roles:
        return ""
    told = {role: words_of(role, services) for role in roles}
    transfer = str((plan.get("expected") or {}).get("transfer", ""))
    body = [_wire(role) for role in roles if role != "router" and "router" in roles]
    if {"prefill", "decode"} <= set(roles):
        body.append(_kv_path(transfer))
        told["KV path"] = [f"from prefill to decode by {transfer or 'nothing known'}"]
    body += [_box(role, told[role]) for role in roles]
    label = "; ".join(f"{name}: {', '.join(words)}" for name, words in told.items())
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(f"Topology. {label}")}">{"".join(body)}</svg></figure>'
    )


def words_of(role: str, services: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines inside the box of a role."""
    own = [service for service in services if service.get("role") == role]
    nodes = sorted({str(service.get("node", "")) for service in own})
    gpus = sum(len(service.get("gpu_ids") or ()) for service in own)
    place = nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes"
    number = f"{len(own)} × {role}" if len(own) > 1 else role
    return [number, f"{place}, {gpus} GPU{'s' if gpus != 1 else ''}" if gpus else place]


def _box(role: str, lines: Sequence[str]) -> str:
    x, y = PLACES[role]
    parts = [
        f'<rect class="box" x="{x}" y="{y}" width="{BOX_W}" height="{BOX_H}" rx="6"/>'
    ]
    for index, line in enumerate(lines):
        at = f'x="{x + BOX_W / 2}" y="{y + 27 + 19 * index}"'
        weight = ' font-weight="700"' if index == 0 else ""
        words = f"{escape(line[:28])}</text>"
        parts.append(f'<text {at} text-anchor="middle"{weight}>{words}')
    return "".join(parts)


def _wire(role: str) -> str:
    x, y = PLACES["router"]
    end_x, end_y = PLACES[role]
    start = f"M{x + BOX_W} {y + BOX_H / 2}"
    return f'<path class="wire" d="{start}L{end_x} {end_y + BOX_H / 2}"/>'


def _kv_path(transfer: str) -> str:
    x, top = PLACES["prefill"]
    x += BOX_W
    low = PLACES["decode"][1] + BOX_H / 2
    curve = f"M{x} {top + BOX_H / 2}h40V{low}h-28"
    tip = f"M{x + 14} {low - 7}l-12 7l12 7"
    words = f'<text x="{x + 50}" y="{HEIGHT / 2 + 4}">KV: {escape(transfer)}</text>'
    return f'<path class="kv" d="{curve}"/><path class="kv" d="{tip}"/>{words}'
