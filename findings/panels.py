"""What the figures have in common: lines told apart without colour, and their axes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from measurement.plot import draw_curve

# Marker, line and colour of the lines in one panel. In greyscale the colours are a dark, a light
# and a middle grey, and black.
STYLES = (("o", "-", "C0"), ("s", "--", "C1"), ("^", "-.", "C2"), ("D", ":", "black"))
T_LABEL = r"$T_{FB}(\theta_A)$"


class Curve(NamedTuple):
    """A line over the layers, its number in STYLES, and the half width of its band."""

    label: str
    style: int
    values: Sequence[float]
    deviations: Sequence[float] | None = None


def line_style(number: int) -> dict[str, Any]:
    """Keywords of matplotlib for the line of that number in a panel."""
    marker, line, colour = STYLES[number % len(STYLES)]
    return {"marker": marker, "linestyle": line, "color": colour, "markersize": 4}


def draw_curves(axes: Any, curves: Sequence[Curve], *, legend: str = "best") -> None:
    """Lines over the layers with their bands, on a logarithmic axis of T, and a legend.

    legend: where it is.
    """
    first, *others = curves
    draw_curve(axes, first.values, first.deviations)
    axes.lines[0].set(label=first.label, **line_style(first.style))
    for band in axes.collections:
        band.set_color(line_style(first.style)["color"])
    for curve in others:
        blocks = range(1, len(curve.values) + 1)
        style = line_style(curve.style)
        axes.plot(blocks, curve.values, label=curve.label, **style)
        if curve.deviations is not None:
            low, high = np.subtract(curve.values, curve.deviations), np.add(*curve[2:])
            axes.fill_between(blocks, low, high, color=style["color"], alpha=0.25, linewidth=0)
    axes.set_yscale("log")
    label_decades(axes.yaxis)
    axes.legend(fontsize=8, loc=legend)


def label_decades(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers: 1, 2, 5, 10, ... or evenly if it is short."""
    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 5 * low else MaxNLocator(6))
    plain_numbers(axis)


def label_values(axis: Any, values: Sequence[float]) -> None:
    """Label a logarithmic axis at these values."""
    axis.set_major_locator(FixedLocator(values))
    axis.set_minor_locator(FixedLocator([]))
    plain_numbers(axis)


def plain_numbers(axis: Any) -> None:
    """Write 1,000 instead of powers of ten, at the major ticks only."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())
