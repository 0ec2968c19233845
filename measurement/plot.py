"""The base of every figure: panels, curves over the layers, line styles, axes, files.

matplotlib is imported when something is drawn, so that no other command waits for it.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from console import InputError, offer
from safe_io import atomic_path

from .results import Group, Result, read_record

# Width and height of a panel in inches, and panels in a row.
PANEL = (5, 3.2)
COLUMNS = 3
T_LABEL = r"$T_{FB}(\theta_A)$"
# Marker, line and colour of the lines in one panel. In greyscale the colours are a dark, a light
# and a middle grey, and black.
STYLES = (("o", "-", "C0"), ("s", "--", "C1"), ("^", "-.", "C2"), ("D", ":", "black"))
# Layers whose names fit below a panel, and files whose names fit into its legend.
MOST_LAYERS = 40
MOST_LABELS = 12
# Ratio of the largest to the smallest value from which on an axis is logarithmic.
WIDE = 5


class Curve(NamedTuple):
    """Values over the layers, half the height of the band around them, and an entry of STYLES.

    has_classifier: the last value is the classifier's, 1 by construction: a point apart.
    """

    values: Sequence[float]
    deviations: Sequence[float] | None = None
    label: str | None = None
    style: int = 0
    has_classifier: bool = False


def default_path(results: list[Result]) -> Path:
    """NAME_transferability.png beside the first file that was measured."""
    b = results[0].b
    return b.with_name(f"{b.stem}_transferability.png")


def draw(
    results: list[Result],
    seeds: Group | None,
    path: Path | None,
    *,
    panels: bool = False,
    show: bool = False,
) -> None:
    """Draw T over the layers; write the figure to `path` and show it, if wanted.

    One panel for all files, or for the mean and its band if they are `seeds` of one experiment.
    panels: one for every file instead. Raises InputError for a format that matplotlib cannot write.
    """
    parts = [[result] for result in results] if panels and not seeds else [results]
    figure, axes = make_figure(len(parts), show=show)
    if len(parts) == 1:
        figure.set_size_inches(max(PANEL[0], 0.3 * len(results[0].layers)), 1.2 * PANEL[1])
    for each, part in zip(axes, parts, strict=True):
        draw_results(each, part, seeds)
    if path is not None:
        save_figure(figure, path)
    if show:
        from matplotlib import pyplot

        escape_missing(figure)
        pyplot.show()


def draw_results(axes: Any, results: Sequence[Result], seeds: Group | None) -> None:
    """A panel of T over the layers of one file or several, or of the mean over `seeds`."""
    trainings = dict.fromkeys(training(result) for result in results)
    common = next(iter(trainings)) if len(trainings) == 1 else ""
    if seeds:
        head = results[0].layers[-1].layer.is_classifier
        curves = [Curve(seeds.means, seeds.deviations, "mean", has_classifier=head)]
        title = [f"{seeds.count} files", common, f"mean {seeds.transferability:.2f}"]
    else:
        curves = [
            Curve(
                [x.transferability for x in result.layers],
                label=label(result, "" if common else training(result)),
                style=i,
                has_classifier=result.layers[-1].layer.is_classifier,
            )
            for i, result in enumerate(results)
        ]
        title = [label(results[0], common)] if len(results) == 1 else [common]

    draw_curve(axes, curves[0])
    for curve in curves[1:]:
        add_curve(axes, curve)
    values = [v for result in results for v in result.values() if v > 0]
    if len(results) > 1 and not seeds and max(values) > WIDE * min(values):
        axes.set_yscale("log")
        label_decades(axes.yaxis)
    label_layers(axes, results[0])
    # A file name may hold dollar signs.
    axes.set_title(", ".join(filter(None, title)), parse_math=False, fontsize=10)
    if seeds or 1 < len(results) <= MOST_LABELS:
        for text in axes.legend(fontsize=7).get_texts():
            text.set_parse_math(False)


def label(result: Result, training: str) -> str:
    """Name of a file, how it was trained, and its mean."""
    words = (result.b.stem, training, f"mean {result.transferability:.2f}")
    return ", ".join(filter(None, words))


def training(result: Result) -> str:
    """Data set and steps of a file, "" without a record."""
    record = read_record(result.b)
    words = (record.get("dataset"), f"{record['steps']} steps" if record else None)
    return ", ".join(filter(None, words))


def label_layers(axes: Any, result: Result) -> None:
    """Write the names of the layers below the axis where they fit."""
    names = [x.layer.name + " (new)" * x.layer.is_classifier for x in result.layers]
    if len(names) <= MOST_LAYERS and max(map(len, names)) <= 2 * MOST_LAYERS:
        axes.set_xticks(range(1, len(names) + 1), names, rotation=90, fontsize=7, parse_math=False)


def make_figure(panels: int, columns: int = COLUMNS, *, show: bool = False) -> tuple[Any, list]:
    """An empty figure and its axes, at most `columns` in a row; show: for pyplot to show.

    Raises InputError where matplotlib is not installed, or is set up for what is not here.
    """
    columns = min(panels, columns)
    rows = -(-panels // columns)
    try:
        create = figure_class(show)
        figure = create(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    except ImportError as error:
        without = offer(" or add --no_plot")
        raise InputError(f"no figure: {error}; install matplotlib{without}") from error
    except Exception as error:
        raise undrawn(error) from error
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]


def figure_class(show: bool) -> Callable[..., Any]:
    """matplotlib's figure without a window; show: pyplot's, in a window."""
    if show:
        from matplotlib import pyplot

        return pyplot.figure
    # MPLBACKEND may name a window system that is not here, a notebook's for instance, with which
    # matplotlib cannot even be imported.
    backend = os.environ.get("MPLBACKEND")
    os.environ["MPLBACKEND"] = "agg"
    try:
        from matplotlib.figure import Figure
    finally:
        if backend is None:
            del os.environ["MPLBACKEND"]
        else:
            os.environ["MPLBACKEND"] = backend
    return Figure


def line_style(number: int) -> dict[str, Any]:
    """matplotlib's keywords for the line of that number in a panel."""
    marker, line, colour = STYLES[number % len(STYLES)]
    return {"marker": marker, "linestyle": line, "color": colour, "markersize": 4}


def draw_curve(axes: Any, curve: Curve) -> None:
    """A panel as in the paper's figures: one curve over the blocks, and a grey line at T = 1."""
    from matplotlib.ticker import MaxNLocator

    add_curve(axes, curve)
    # Thin, grey and without markers, unlike every line of data.
    axes.axhline(1.0, color="0.7", linewidth=0.8, zorder=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Block")
    axes.set_ylabel(T_LABEL)


def add_curve(axes: Any, curve: Curve) -> None:
    """A line over the blocks with its band; values that are not finite leave a gap."""
    style = line_style(curve.style)
    values = [v if math.isfinite(v) else math.nan for v in curve.values]
    end = len(values) - curve.has_classifier
    blocks = range(1, end + 1)
    axes.plot(blocks, values[:end], label=curve.label, **style)
    if curve.has_classifier:
        hollow = {**style, "linestyle": "none", "markerfacecolor": "white"}
        axes.plot([end + 1], values[end:], **hollow)
    if curve.deviations is not None:
        pairs = list(zip(values, curve.deviations, strict=True))[:end]
        low, high = [v - d for v, d in pairs], [v + d for v, d in pairs]
        label = f"{curve.label} +- one standard deviation" if curve.label == "mean" else None
        band = {"color": style["color"], "alpha": 0.25, "linewidth": 0}
        axes.fill_between(blocks, low, high, label=label, **band)


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


def escape_missing(figure: Any) -> None:
    """Write escapes for the characters of file and class names that the fonts of a figure lack.

    matplotlib would draw boxes, with a warning for each.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import FixedLocator

    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if isinstance(axis.get_major_locator(), FixedLocator):
                labels = axis.get_majorticklabels()
                names = [with_glyphs(label) for label in labels]
                # Otherwise drawing would write the names anew.
                if names != [label.get_text() for label in labels]:
                    axis.set_ticks(axis.get_majorticklocs(), names)
    for text in figure.findobj(Text):
        text.set_text(with_glyphs(text))


def with_glyphs(text: Any) -> str:
    """The characters of a text of matplotlib, escaped where none of its fonts has them."""
    from matplotlib.font_manager import findfont, get_font

    if text.get_text().isascii() and text.get_text().isprintable():
        return text.get_text()
    fonts = []
    for family in text.get_fontfamily():
        properties = text.get_fontproperties().copy()
        properties.set_family(family)
        fonts.append(get_font(findfont(properties)))
    return "".join(
        c
        if c == "\n" or any(font.get_char_index(ord(c)) for font in fonts)
        else c.encode("unicode_escape").decode("ascii")
        for c in text.get_text()
    )


def save_figure(figure: Any, path: Path) -> None:
    """Write the figure in the format that the file name ends in (PNG without one).

    Raises InputError for a format that matplotlib cannot write, where the disk refuses, and where a
    setting of the user's matplotlib asks for what is not here, such as LaTeX.
    """
    format_ = path.suffix.removeprefix(".").lower() or "png"
    known = figure.canvas.get_supported_filetypes()
    if format_ not in known:
        raise InputError(f"cannot draw {path}: no such format; one of {', '.join(sorted(known))}")
    escape_missing(figure)
    with atomic_path(path) as temporary:
        try:
            figure.savefig(temporary, format=format_, dpi=150)
        except OSError:
            raise
        except Exception as error:
            raise undrawn(error, path) from error


def undrawn(error: Exception, path: Path | None = None) -> InputError:
    """The error of a figure that matplotlib, as it is set up here, cannot draw."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return InputError(
        f"cannot draw {path or 'the figure'}: {reason}; look at matplotlib's settings "
        f"(text.usetex, MPLBACKEND), or give another format{offer(', or add --no_plot')}"
    )
