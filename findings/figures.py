"""Draw the figures of a table of results and of step 3's JSON files, as PDF and PNG.

    python -m findings figures results.csv --out DIR
    python -m findings figures --json T.json MORE.json --out DIR
    python -m findings figures --json T.json --null T0.json --out DIR
    python -m findings figures --along X.csv MORE.csv --out DIR

What the input allows is drawn. Of a table, whose columns are those of the regression: `scaling`, T
against images and steps on logarithmic axes with lines and their 95 % intervals, one for every
value of the other size; `regression`, ln T as fitted and as measured. Of JSON files: `layers`, T
over the blocks of every result; `null`, T beside its chance level T0 (the same fine-tuning from an
independent random start) and T / T0.

Of the table of a study: `scaling`; `layers`, a panel per number of images; `depth`, T, T0 and
T / T0 over the blocks; `predicted`, T as predicted from N and S and as measured; `regression` with
--predictors or --with only.

Of the X.csv of runs with `finetune.py -r`: `along`, T after every epoch (see findings.along).
"""

import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from console import ArgumentParser, InputError, say
from measurement.plot import draw_curve, make_figure, save_figure

from . import study_figures
from .along import draw_ways, read_way
from .intervals import import_statsmodels
from .least_squares import LOG
from .panels import (
    STYLES,
    T_LABEL,
    label_decades,
    label_values,
    line_style,
)
from .profiles import Profile, read_profiles
from .regression import DEFAULT, Regression, add_predictor_options, regress
from .table import Table, comparable_rows, find_column, has_column, read_column, read_table

# Columns that T is drawn against -> label of the axis, and what so many of them are called.
SIZES = {"N": ("Training images", "images"), "steps": ("Optimiser steps", "steps")}
# More names than these cover each other.
NAMED = 15
# At most so many numbers of steps are ticks of the axis.
TICKS = 6


def draw_scaling(table: Table, sizes: list[str]) -> Figure:
    """T against each of the sizes, with the line of ln T on its logarithm.

    Where the other size has two to four values, a line for each, or rows that differ in it would
    pass for noise.
    """
    log_t = read_column(table, LOG + "T")
    columns = {size: read_column(table, size) for size in SIZES if find_column(table, size)}
    figure, panels = make_figure(len(sizes))
    for axes, size in zip(panels, sizes, strict=True):
        if axes is not panels[0]:
            axes.sharey(panels[0])
        log_x = np.log(columns[size])
        others = [name for name in columns if name != size]
        values = np.unique(columns[others[0]]) if others else []
        if 2 <= len(values) <= len(STYLES):
            word = SIZES[others[0]][1]
            for i, value in enumerate(values):
                rows = columns[others[0]] == value
                draw_line(axes, log_x[rows], log_t[rows], line_style(i), f"{value:,.10g} {word}")
            axes.legend(fontsize=7, loc="upper center")
            axes.set_title(f"at equal numbers of {word}, {len(log_t)} rows")
        else:
            slope = draw_line(axes, log_x, log_t, line_style(0))
            axes.set_title(f"{slope}, {len(log_t)} rows")
        axes.set_xlabel(SIZES[size][0])
        axes.set_ylabel(T_LABEL)
        for axis in (axes.xaxis, axes.yaxis):
            label_decades(axis)
        ticks = np.unique(columns[size])
        if size == "steps" and len(ticks) <= TICKS:
            label_values(axes.xaxis, ticks)
    if any(axes.get_legend() for axes in panels):
        # Room for the legends, above all points. The panels share the axis.
        low, high = panels[0].get_ylim()
        panels[0].set_ylim(low, high * (high / low) ** 0.4)
    return figure


def has_line(log_x: np.ndarray) -> bool:
    """Whether a line can be fitted: two coefficients, and for the interval two rows more."""
    return len(log_x) >= 4 and log_x.min() < log_x.max()


def draw_line(
    axes: Any, log_x: np.ndarray, log_t: np.ndarray, style: dict[str, Any], label: str = ""
) -> str:
    """Points, least-squares line, and the 95 % interval of the line (not of a new point).

    Returns the slope in words, which the legend has, too, if there is a label. Points alone where
    no line can be fitted.
    """
    axes.loglog(np.exp(log_x), np.exp(log_t), **style | {"linestyle": ""})
    if not has_line(log_x):
        axes.lines[-1].set_label(label)
        return ""
    api = import_statsmodels()
    fit = api.OLS(log_t, api.add_constant(log_x)).fit()
    along = np.linspace(log_x.min(), log_x.max(), 100)
    line = fit.get_prediction(api.add_constant(along))
    low, high = line.conf_int().T
    (_, slope), (_, (slope_low, slope_high)) = fit.params, fit.conf_int()
    words = f"slope {slope:.2f} (95 % {slope_low:.2f} to {slope_high:.2f})"
    colour = style["color"] if label else "0.2"
    axes.loglog(
        np.exp(along),
        np.exp(line.predicted),
        color=colour,
        linestyle=style["linestyle"],
        linewidth=1,
    )
    axes.fill_between(
        np.exp(along), np.exp(low), np.exp(high), color=colour, alpha=0.15, linewidth=0
    )
    if label:
        # The legend shows marker and line.
        axes.plot([], [], label=f"{label}: {words}", **style)
    return words


def draw_regression(table: Table, found: Regression) -> Figure:
    """ln T as fitted against ln T as measured; on the dashed line they agree."""
    figure, (axes,) = make_figure(1)
    measured, fitted = found.fit.model.endog, found.fit.fittedvalues
    ends = [min(measured.min(), fitted.min()), max(measured.max(), fitted.max())]
    axes.plot(ends, ends, color="0.6", linewidth=0.8, linestyle="--")
    axes.plot(measured, fitted, "o", markersize=4)
    if len(table.rows) <= NAMED:
        for row, x, y in zip(table.rows, measured, fitted, strict=True):
            # Away from the line. A data set's name may hold dollar signs.
            axes.annotate(
                row.name,
                (x, y),
                xytext=(-5 if y > x else 5, 0),
                textcoords="offset points",
                horizontalalignment="right" if y > x else "left",
                verticalalignment="center",
                fontsize=6,
                parse_math=False,
            )
        axes.margins(x=0.25)
    axes.set_xlabel("ln T, measured")
    axes.set_ylabel("ln T, fitted")
    axes.set_title(found.equation.replace("log T = ", "ln T = "), parse_math=False, fontsize=9)
    return figure


def draw_layers(profiles: list[Profile]) -> Figure:
    """A panel per result, as in the paper's figures."""
    figure, panels = make_figure(len(profiles))
    for axes, profile in zip(panels, profiles, strict=True):
        draw_curve(axes, profile.values)
        axes.set_title(f"{profile.name} (mean {profile.transferability:.2f})", parse_math=False)
    return figure


def draw_null(t: list[Profile], t0: list[Profile]) -> Figure:
    """T and T0 by depth, and T / T0; means where there are several results, which are seeds then.

    The band is one standard deviation of T. Raises InputError where the layers differ.
    """
    for profile in [*t, *t0]:
        if list(profile.layers) != list(t[0].layers):
            raise InputError(f"--null: {t[0].name} and {profile.name} have other layers")
    real, chance = mean_layers(t), mean_layers(t0)
    figure, (left, right) = make_figure(2)
    draw_curve(left, real, deviation_of_layers(t))
    left.lines[0].set_label("$T$")
    blocks = range(1, len(chance) + 1)
    left.plot(blocks, chance, **line_style(1), label="$T_0$")
    left.legend()
    left.set_title(f"$T$ {overall(t)}, $T_0$ {overall(t0)}")
    draw_curve(right, [x / y if y else math.nan for x, y in zip(real, chance, strict=True)])
    right.set_ylabel("$T / T_0$")
    right.set_title("dashed: no better than chance")
    for axes in (left, right):
        axes.set_yscale("log")
        label_decades(axes.yaxis)
    return figure


def overall(profiles: list[Profile]) -> str:
    """Mean of the overall T, and of how many results."""
    mean = statistics.fmean(profile.transferability for profile in profiles)
    return f"{mean:.2f} (n = {len(profiles)})"


def mean_layers(profiles: list[Profile]) -> list[float]:
    """Mean of every layer; not finite where the layer did not move in one of the results."""
    columns = zip(*(profile.layers.values() for profile in profiles), strict=True)
    return [statistics.fmean(column) for column in columns]


def deviation_of_layers(profiles: list[Profile]) -> list[float] | None:
    """Sample standard deviation of every layer; None for a single result."""
    if len(profiles) < 2:
        return None
    columns = zip(*(profile.layers.values() for profile in profiles), strict=True)
    return [statistics.stdev(x) if all(map(math.isfinite, x)) else math.nan for x in columns]


def figures_of_table(
    table: Table, names: list[str], *, regression: bool, wanted: bool
) -> dict[str, Figure]:
    """The figures that the columns allow; says which it leaves out, and why.

    table: rows that compare. wanted: a regression that cannot be fitted is an error.
    """
    import_statsmodels()
    figures = {}
    # A wrong cell is an error in any case.
    read_column(table, LOG + "T")
    sizes = [size for size in SIZES if find_column(table, size)]
    for size in sizes.copy():
        values = read_column(table, LOG + size)
        if not has_line(values):
            say(f"not drawn: T against {size}, which needs four rows and different values")
            sizes.remove(size)
    if sizes:
        figures["scaling"] = draw_scaling(table, sizes)
    for name in names:
        if has_column(table, name):
            read_column(table, name)
    if wanted:
        figures["regression"] = draw_regression(table, regress(table, names))
    elif regression:
        figures |= attempt(
            "regression", "the regression", lambda: draw_regression(table, regress(table, names))
        )
    return figures


def figures_of_study(table: Table, whole: Table) -> dict[str, Figure]:
    """The further figures of a study; says which it leaves out, and why.

    table: rows that compare; whole: all rows. Raises InputError for a wrong cell.
    """
    study_figures.check_cells(whole)
    return {
        **attempt("layers", "layer-wise curves", lambda: study_figures.draw_layers(table)),
        **attempt("depth", "T beside T0", lambda: study_figures.draw_depth(table, whole)),
        **attempt("predicted", "predicted T", lambda: study_figures.draw_predicted(table)),
    }


def attempt(name: str, words: str, draw: Callable[[], Figure]) -> dict[str, Figure]:
    """The figure by its name, or nothing after a line that says why."""
    try:
        return {name: draw()}
    except InputError as error:
        say(f"not drawn: {words}; {error}")
        return {}


def read_figures(path: Path, names: list[str]) -> dict[str, Figure]:
    """The figures of a table; names: predictors of the regression."""
    whole = read_table(path)
    table, left_out = comparable_rows(whole)
    for note in table.notes:
        say(f"note: {note}")
    for reason in left_out:
        say(f"{table.path}: {reason}")
    study = "start" in table.columns
    wanted = names != DEFAULT.split(",")
    figures = figures_of_table(table, names, regression=not study, wanted=wanted)
    return figures | (figures_of_study(table, whole) if study else {})


def main(argv: list[str]) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings figures")
    parser.add_argument("table", nargs="?", type=Path, help="CSV file, as findings/published.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--json", nargs="+", type=Path, default=[], help="files of step 3")
    parser.add_argument("--null", nargs="+", type=Path, default=[], help="those with T0")
    parser.add_argument("--along", nargs="+", type=Path, default=[], help="X.csv of finetune.py -r")
    add_predictor_options(parser)
    args = parser.parse_args(argv)
    if args.null and not args.json:
        raise InputError("--null needs --json: T0 is drawn beside T")

    figures = read_figures(args.table, args.predictors + args.more) if args.table else {}
    profiles = [profile for path in args.json for profile in read_profiles(path)]
    if profiles and "layers" in figures:
        raise InputError(
            f"the layers of {args.table} and of --json would be one file; draw them by two commands"
        )
    if profiles:
        figures["layers"] = draw_layers(profiles)
    if args.null:
        null = [profile for path in args.null for profile in read_profiles(path)]
        figures["null"] = draw_null(profiles, null)
    if args.along:
        figures["along"] = draw_ways([read_way(path) for path in args.along])
    if not figures:
        raise InputError("nothing to draw; give a table with T and N or steps, --json or --along")
    write(figures, args.out)


def write(figures: dict[str, Figure], folder: Path) -> None:
    """Write every figure as PDF and PNG into the folder, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder}: {error.strerror}") from error
    for name, figure in figures.items():
        for ending in (".pdf", ".png"):
            path = folder / (name + ending)
            save_figure(figure, path)
            say(path.resolve())
