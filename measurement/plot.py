"""T over the layers, drawn as in the paper's figures. matplotlib is imported when it is needed."""

import math
from pathlib import Path
from typing import Any

from console import InputError
from safe_io import atomic_path

from .results import Group, Result

# Inches of a panel, and panels in a row: of every figure.
PANEL = (5, 3.2)
COLUMNS = 3


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
            draw_curve(axes, seeds.means, seeds.deviations)
            axes.set_title(f"{seeds.count} files (mean {seeds.transferability:.2f})")
        else:
            draw_curve(axes, [x.transferability for x in results[i].layers])
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


def draw_curve(axes: Any, values: list[float], deviations: list[float] | None = None) -> None:
    """T over the blocks as in the paper's figures; values that are not finite leave a gap.

    axes: of matplotlib. deviations: half the height of a band around the curve, for every block.
    """
    from matplotlib.ticker import MaxNLocator

    blocks = range(1, len(values) + 1)
    values = [v if math.isfinite(v) else math.nan for v in values]
    axes.plot(blocks, values, "o-", markersize=4)
    if deviations:
        low = [v - d for v, d in zip(values, deviations, strict=True)]
        high = [v + d for v, d in zip(values, deviations, strict=True)]
        axes.fill_between(blocks, low, high, alpha=0.25, linewidth=0)
    axes.axhline(1.0, color="0.6", linewidth=0.8, linestyle="--")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Block")
    axes.set_ylabel(r"$T_{FB}(\theta_A)$")


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
