"""The base of every figure: panels, curves over the layers, line styles, axes, files.

matplotlib is imported when something is drawn, so that no other command waits for it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from console import InputError
from safe_io import atomic_path

from .results import Group, Result

# Width and height of a panel in inches, and panels in a row.
PANEL = (5, 3.2)
COLUMNS = 3
T_LABEL = r"$T_{FB}(\theta_A)$"
# Marker, line and colour of the lines in one panel. In greyscale the colours are a dark, a light
# and a middle grey, and black.
STYLES = (("o", "-", "C0"), ("s", "--", "C1"), ("^", "-.", "C2"), ("D", ":", "black"))


class Curve(NamedTuple):
    """Values over the layers, half the height of the band around them, and an entry of STYLES."""

    values: Sequence[float]
    deviations: Sequence[float] | None = None
    label: str | None = None
    style: int = 0


def default_path(results: list[Result]) -> Path:
    """NAME_transferability.png beside the first file that was measured."""
    b = results[0].b
    return b.with_name(f"{b.stem}_transferability.png")


def draw(results: list[Result], seeds: Group | None, path: Path | None, *, show: bool) -> None:
    """Draw T over the layers; write the figure to `path` and show it, if wanted.

    One panel for every file, or one for all with a band of one standard deviation if they are
    `seeds` of one experiment. Raises InputError for a format that matplotlib cannot write.
    """
    figure, panels = make_figure(1 if seeds else len(results), show=show)
    for i, axes in enumerate(panels):
        if seeds:
            draw_curve(axes, Curve(seeds.means, seeds.deviations))
            axes.set_title(f"{seeds.count} files (mean {seeds.transferability:.2f})")
        else:
            draw_curve(axes, Curve([x.transferability for x in results[i].layers]))
            # A file name may hold dollar signs.
            title = f"{results[i].b.stem} (mean {results[i].transferability:.2f})"
            axes.set_title(title, parse_math=False)
    if path is not None:
        save_figure(figure, path)
    if show:
        from matplotlib import pyplot

        pyplot.show()


def make_figure(panels: int, columns: int = COLUMNS, *, show: bool = False) -> tuple[Any, list]:
    """An empty figure and its axes, at most `columns` in a row; show: for pyplot to show.

    Raises InputError where matplotlib is not installed.
    """
    try:
        from matplotlib import figure as figures
    except ImportError as error:
        raise InputError(f"no figure: {error}; install matplotlib or add --no_plot") from error
    create = figures.Figure
    if show:
        from matplotlib import pyplot

        create = pyplot.figure
    columns = min(panels, columns)
    rows = -(-panels // columns)
    figure = create(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]


def line_style(number: int) -> dict[str, Any]:
    """matplotlib's keywords for the line of that number in a panel."""
    marker, line, colour = STYLES[number % len(STYLES)]
    return {"marker": marker, "linestyle": line, "color": colour, "markersize": 4}


def draw_curve(axes: Any, curve: Curve) -> None:
    """A panel as in the paper's figures: one curve over the blocks, and a dashed line at T = 1."""
    from matplotlib.ticker import MaxNLocator

    add_curve(axes, curve)
    axes.axhline(1.0, color="0.6", linewidth=0.8, linestyle="--")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Block")
    axes.set_ylabel(T_LABEL)


def add_curve(axes: Any, curve: Curve) -> None:
    """A line over the blocks with its band; values that are not finite leave a gap."""
    style = line_style(curve.style)
    blocks = range(1, len(curve.values) + 1)
    values = [v if math.isfinite(v) else math.nan for v in curve.values]
    axes.plot(blocks, values, label=curve.label, **style)
    if curve.deviations is not None:
        low = [v - d for v, d in zip(values, curve.deviations, strict=True)]
        high = [v + d for v, d in zip(values, curve.deviations, strict=True)]
        axes.fill_between(blocks, low, high, color=style["color"], alpha=0.25, linewidth=0)


def draw_curves(axes: Any, curves: Sequence[Curve], *, legend: str = "best") -> None:
    """A panel of several curves on a logarithmic axis; legend: its position."""
    first, *others = curves
    draw_curve(axes, first)
    for curve in others:
        add_curve(axes, curve)
    axes.set_yscale("log")
    label_decades(axes.yaxis)
    axes.legend(fontsize=8, loc=legend)


def label_decades(*logarithmic: Any) -> None:
    """Label each axis with plain numbers: 1, 2, 5, 10, ... or evenly if it is short."""
    from matplotlib.ticker import LogLocator, MaxNLocator

    for axis in logarithmic:
        low, high = sorted(axis.get_view_interval())
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 5 * low else MaxNLocator(6))
        plain_numbers(axis)


def label_values(axis: Any, values: Sequence[float]) -> None:
    """Label a logarithmic axis at these values."""
    from matplotlib.ticker import FixedLocator

    axis.set_major_locator(FixedLocator(values))
    axis.set_minor_locator(FixedLocator([]))
    plain_numbers(axis)


def plain_numbers(axis: Any) -> None:
    """Write 1,000 instead of powers of ten, at the major ticks only."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def save_figure(figure: Any, path: Path) -> None:
    """Write the figure in the format that the file name ends in (PNG without one).

    Raises InputError for a format that matplotlib cannot write, and where the disk refuses.
    """
    format_ = path.suffix.removeprefix(".").lower() or "png"
    known = figure.canvas.get_supported_filetypes()
    if format_ not in known:
        raise InputError(f"cannot draw {path}: no such format; one of {', '.join(sorted(known))}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=format_, dpi=150)
