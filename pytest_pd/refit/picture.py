"""The traffic matrix as a picture: SVG with the standard library, PNG by matplotlib."""

from __future__ import annotations

import html
from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pytest_pd.errors import EngineMissing, SpecError
from pytest_pd.refit.bound import GB
from pytest_pd.refit.plan import RefitPlan

CELL_PX = 5
LEFT_PX, TOP_PX, BOTTOM_PX = 64, 64, 40


def title(plan: RefitPlan) -> str:
    """Return what the picture shows, in one line."""
    s = plan.scenario
    return (
        f"{plan.model.name}, scenario {s.id}: {s.source} -> {s.target}, "
        f"{s.mode}, {s.dtype}"
    )


def matrix_gb(plan: RefitPlan) -> npt.NDArray[np.float64]:
    """Return the matrix to draw, source by target rank, in 10**9 bytes."""
    return plan.traffic.elements.astype(np.float64) * (plan.element_bytes / GB)


def _colour(share: float) -> str:
    # White to dark blue; the square root lets small transfers be seen.
    depth = float(np.sqrt(share))
    low, high = (238, 243, 250), (8, 48, 107)
    rgb = (round(a + (b - a) * depth) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{value:02x}" for value in rgb)


def svg(plan: RefitPlan) -> str:
    """Return a self-contained SVG; one square per pair of ranks that exchange bytes."""
    matrix = matrix_gb(plan)
    ranks, top = len(matrix), float(matrix.max()) or 1.0
    side = ranks * CELL_PX
    width, height = side + LEFT_PX + 24, side + TOP_PX + BOTTOM_PX
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11">',
        f"<title>{html.escape(title(plan))}</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="8" y="18" font-size="13">{html.escape(title(plan))}</text>',
        f'<text x="{LEFT_PX}" y="36">target rank (to the right)</text>',
        f'<text x="8" y="52">source rank (down); darkest square: {top:.3g} GB</text>',
        f'<rect x="{LEFT_PX}" y="{TOP_PX}" width="{side}" height="{side}" '
        f'fill="#f7f7f7"/>',
    ]
    for row, column in zip(*np.nonzero(matrix), strict=True):
        value = float(matrix[row, column])
        parts.append(
            f'<rect x="{LEFT_PX + column * CELL_PX}" y="{TOP_PX + row * CELL_PX}" '
            f'width="{CELL_PX}" height="{CELL_PX}" fill="{_colour(value / top)}">'
            f"<title>{row} to {column}: {value:.3g} GB</title></rect>"
        )
    parts += _domain_lines(plan, side)
    return "\n".join([*parts, "</svg>\n"])


def _domain_lines(plan: RefitPlan, side: int) -> list[str]:
    lines = []
    for rank in range(0, len(plan.traffic.elements) + 1, plan.cluster.domain_gpus):
        at = rank * CELL_PX
        x, y = LEFT_PX + at, TOP_PX + at
        style = 'stroke="#999" stroke-width="0.5"'
        lines += [
            f'<line x1="{x}" y1="{TOP_PX}" x2="{x}" y2="{TOP_PX + side}" {style}/>',
            f'<line x1="{LEFT_PX}" y1="{y}" x2="{LEFT_PX + side}" y2="{y}" {style}/>',
            f'<text x="{x}" y="{TOP_PX + side + 14}">{rank}</text>',
            f'<text x="{LEFT_PX - 28}" y="{y + 10}">{rank}</text>',
        ]
    return lines


def _png(plan: RefitPlan, path: Path) -> None:
    try:
        agg = import_module("matplotlib.backends.backend_agg")
        figures = import_module("matplotlib.figure")
    except ImportError as error:
        raise EngineMissing(
            "a PNG needs matplotlib.",
            hint="pip install 'pytest-pd[plots]', or ask for FILE.svg",
        ) from error
    figure = figures.Figure(figsize=(7, 6.4), layout="constrained")
    agg.FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(np.sqrt(matrix_gb(plan)), cmap="Blues", interpolation="nearest")
    axes.set(xlabel="target rank", ylabel="source rank")
    axes.set_title(title(plan), fontsize=9)
    figure.colorbar(image, label="square root of GB")
    figure.savefig(path, dpi=120)


def save(plan: RefitPlan, path: Path) -> None:
    """Write the picture; the suffix, .svg or .png, says which kind.

    Raises:
        EngineMissing: a PNG was asked for without matplotlib.
        SpecError: another suffix.
    """
    if path.suffix == ".svg":
        path.write_text(svg(plan), encoding="utf-8")
    elif path.suffix == ".png":
        _png(plan, path)
    else:
        raise SpecError(f"{path} is neither .svg nor .png.", hint="give FILE.svg")
