"""Draw the figures of a table of results and of step 3's JSON files, as PDF and PNG.

    python -m findings figures results.csv --out DIR
    python -m findings figures --json T.json MORE.json --out DIR
    python -m findings figures --json T.json --null T0.json --out DIR

What the input allows is drawn: `scaling`, T against images and steps on logarithmic axes with a
line and its 95 % interval; `regression`, ln T as fitted and as measured; `layers`, T over the
blocks of every result of the JSON files; `null`, T beside its chance level T0 (the same fine-tuning
from an independent random start) and T / T0. The columns of the table are those of the regression,
and so are the rows of a study.
"""

import json
import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from findings.least_squares import LOG
from findings.regression import (
    DEFAULT,
    Regression,
    add_predictor_options,
    import_statsmodels,
    regress,
)
from findings.table import (
    Table,
    comparable_rows,
    find_column,
    has_column,
    read_column,
    read_table,
)
from report import draw_curve, save_figure
from safe_io import ArgumentParser, InputError, say, warn

# Inches, as in the figures of step 3.
PANEL = (5, 3.2)
COLUMNS = 3
# Columns that T is drawn against -> label of the axis.
SIZES = {"N": "Training images", "steps": "Optimiser steps"}
# More names than these cover each other.
NAMED = 15
T_LABEL = r"$T_{FB}(\theta_A)$"


class Profile(NamedTuple):
    """T of one result over the depth, and layer -> T without the classifier, which is new."""

    name: str
    transferability: float
    values: list[float]
    layers: dict[str, float]


def read_profiles(path: Path) -> list[Profile]:
    """The results of a JSON file of step 3; InputError for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        profiles = [read_profile(result) for result in content["results"]]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise InputError(
            f"{path} is no JSON file of step 3 (cal_transferability.py --json)"
        ) from error
    if not profiles:
        raise InputError(f"{path} holds no results")
    if content.get("r_is_substitute"):
        warn(f"{path}: theta_r is a substitute; not comparable with values from a true theta_r")
    return profiles


def read_profile(result: dict[str, Any]) -> Profile:
    """One entry of the results; a value that is not finite is stored by its name."""
    values = [float(layer["transferability"]) for layer in result["layers"]]
    layers = {
        layer["name"]: value
        for layer, value in zip(result["layers"], values, strict=True)
        if layer["distance_a_b"] is not None
    }
    if not layers:
        raise ValueError("no layers")
    return Profile(Path(result["b"]).stem, float(result["transferability"]), values, layers)


def make_figure(panels: int) -> tuple[Figure, list[Any]]:
    """An empty figure and its axes, at most COLUMNS in a row."""
    columns = min(panels, COLUMNS)
    rows = -(-panels // columns)
    figure = Figure(figsize=(PANEL[0] * columns, PANEL[1] * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]


def draw_scaling(table: Table, sizes: list[str]) -> Figure:
    """T against each of the sizes, with the line of ln T on its logarithm."""
    log_t = read_column(table, LOG + "T")
    figure, panels = make_figure(len(sizes))
    for axes, size in zip(panels, sizes, strict=True):
        draw_line(axes, read_column(table, LOG + size), log_t)
        axes.set_xlabel(SIZES[size])
        axes.set_ylabel(T_LABEL)
        for axis in (axes.xaxis, axes.yaxis):
            label_decades(axis)
    return figure


def label_decades(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers: 1, 2, 5, 10, ... or evenly if it is short."""
    low, high = sorted(axis.get_view_interval())
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 5 * low else MaxNLocator(5))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def draw_line(axes: Any, log_x: np.ndarray, log_t: np.ndarray) -> None:
    """Points, least-squares line, and the 95 % interval of the line (not of a new point)."""
    api = import_statsmodels()
    fit = api.OLS(log_t, api.add_constant(log_x)).fit()
    along = np.linspace(log_x.min(), log_x.max(), 100)
    line = fit.get_prediction(api.add_constant(along))
    low, high = line.conf_int().T
    axes.loglog(np.exp(log_x), np.exp(log_t), "o", markersize=4)
    axes.loglog(np.exp(along), np.exp(line.predicted), "-", color="0.2", linewidth=1)
    axes.fill_between(
        np.exp(along), np.exp(low), np.exp(high), color="0.2", alpha=0.15, linewidth=0
    )
    (_, slope), (_, (slope_low, slope_high)) = fit.params, fit.conf_int()
    axes.set_title(
        f"slope {slope:.2f} (95 % {slope_low:.2f} to {slope_high:.2f}), {len(log_t)} rows"
    )


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
    left.plot(blocks, chance, "s--", markersize=4, markerfacecolor="white", label="$T_0$")
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


def figures_of_table(table: Table, names: list[str], *, wanted: bool) -> dict[str, Figure]:
    """The figures that the columns allow; says which it leaves out, and why.

    wanted: the predictors were chosen, so a regression that cannot be fitted is an error.
    """
    import_statsmodels()
    figures = {}
    log_t = read_column(table, LOG + "T")
    sizes = [size for size in SIZES if find_column(table, size)]
    for size in sizes.copy():
        values = read_column(table, LOG + size)
        # A line has two coefficients; the interval needs two rows more.
        if len(log_t) < 4 or values.min() == values.max():
            say(f"not drawn: T against {size}, which needs four rows and different values")
            sizes.remove(size)
    if sizes:
        figures["scaling"] = draw_scaling(table, sizes)
    for name in names:
        # A wrong cell is an error in any case.
        if has_column(table, name):
            read_column(table, name)
    try:
        figures["regression"] = draw_regression(table, regress(table, names))
    except InputError as error:
        if wanted:
            raise
        say(f"not drawn: the regression; {error}")
    return figures


def main(argv: list[str]) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings figures")
    parser.add_argument("table", nargs="?", type=Path, help="CSV file, as findings/published.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--json", nargs="+", type=Path, default=[], help="files of step 3")
    parser.add_argument("--null", type=Path, help="file of step 3 with T0")
    add_predictor_options(parser)
    args = parser.parse_args(argv)
    if args.null and not args.json:
        raise InputError("--null needs --json: T0 is drawn beside T")

    figures = {}
    if args.table:
        table, left_out = comparable_rows(read_table(args.table))
        for note in table.notes:
            say(f"note: {note}")
        for reason in left_out:
            say(f"{table.path}: {reason}")
        names = args.predictors + args.more
        figures |= figures_of_table(table, names, wanted=names != DEFAULT.split(","))
    profiles = [profile for path in args.json for profile in read_profiles(path)]
    if profiles:
        figures["layers"] = draw_layers(profiles)
    if args.null:
        figures["null"] = draw_null(profiles, read_profiles(args.null))
    if not figures:
        raise InputError("nothing to draw; give a table with T and N or steps, or --json")
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
