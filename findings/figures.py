"""Draw the figures of a table of results and of step 3's JSON files, as PDF and PNG.

    python -m findings figures results.csv --out DIR
    python -m findings figures --json T.json MORE.json --out DIR
    python -m findings figures --json T.json --null T0.json --out DIR
    python -m findings figures --along X.csv MORE.csv --out DIR

What the input allows is drawn. Of a table, whose columns are those of the regression: `scaling`, T
against images and steps on logarithmic axes with lines and their 95 % intervals over the rows, one
for every value of the other size; `regression`, ln T as fitted and as measured. Of JSON files:
`layers`, T over the blocks of every result; `null`, T beside T0 (the same fine-tuning with
one thing taken away: from another random start, from a shuffled theta_A, or with random labels) and
T / T0. The results of --json are seeds of one experiment then, and so are those of --null. T is
divided by T0 at one budget only: results of other budgets are refused.

Of the table of a study: `scaling`, with lines through the means of the seeds; `layers`, a panel per
number of images; `depth`, T, T0 and T / T0 over the blocks; `predicted`, T as measured and as
predicted from N and S by one line; `regression` with --predictors or --with only. Bands are one
standard deviation over seeds. T0 of a random start rises with the width of the layers, so that
T / T0 falls with depth whatever T does: it is no evidence about transfer.

Of the X.csv of runs with `finetune.py -r`, beside their X.json: `along`, T after every epoch. Where
the learning rate falls, T of an earlier epoch is not that of a shorter run, which would have been
annealed by then: such a curve is labelled "not annealed", and only its end, a star, compares with
the ends of other runs. Curves at a constant rate compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS

from console import ArgumentParser, InputError, say, warn
from measurement import plot
from measurement.checks import budget_differences

from .published import LOG
from .reader import (
    RANDOM,
    TASK,
    Table,
    comparable_rows,
    find_column,
    group_rows,
    of_block,
    read_column,
    read_json,
    read_table,
)
from .regression import DEFAULT, add_predictor_options, regress
from .summary import layer_columns, log_layers, same_budget

if TYPE_CHECKING:  # with some settings of the user's, matplotlib cannot be imported: see plot
    from matplotlib.figure import Figure

# Columns that T is drawn against -> label of the axis, and the noun of its numbers.
SIZES = {"N": ("Training images", "images"), "steps": ("Optimiser steps", "steps")}
# More names than these cover each other.
NAMED = 15
# At most this many numbers of steps are ticks of the axis.
TICKS = 6


# --- Figures of any table ---


def figures_of_table(path: Path, names: list[str], block: str | None) -> dict[str, Figure]:
    """The figures that a table allows; says which are left out, and why.

    names: predictors of the regression, which is an error where others than DEFAULT cannot be
    fitted. block: see `reader.of_block`. Raises InputError for a wrong cell.
    """
    whole = of_block(read_table(path), block)
    table, left_out = comparable_rows(whole)
    for note in table.notes:
        say(f"note: {note}")
    for reason in left_out:
        say(f"{path}: {reason}")
    # A wrong cell is an error in any case.
    read_column(table, LOG + "T")
    figures = {}
    sizes = [size for size in SIZES if find_column(table, size)]
    for size in sizes.copy():
        if not has_line(read_column(table, LOG + size)):
            say(f"not drawn: T against {size}, which needs four rows and different values")
            sizes.remove(size)
    if sizes:
        figures["scaling"] = draw_scaling(table, sizes)

    for name in names:
        if find_column(table, name) or find_column(table, name.removeprefix(LOG)):
            read_column(table, name)
    is_study = "start" in table.columns
    if names != DEFAULT.split(","):
        figures["regression"] = draw_regression(table, names)
    elif not is_study:
        figures |= attempt("regression", draw_regression, table, names)
    return figures | (figures_of_study(table, whole) if is_study else {})


def attempt(name: str, draw: Callable[..., Figure], *arguments: Any) -> dict[str, Figure]:
    """The figure by its name, or nothing after a line that says why."""
    try:
        return {name: draw(*arguments)}
    except InputError as error:
        say(f"not drawn: {name}; {error}")
        return {}


def draw_scaling(table: Table, sizes: list[str]) -> Figure:
    """T against each of the sizes, with the line of ln T on its logarithm.

    Where the other size has two to four values, a line for each, or rows that differ in it would
    pass for noise. Of a study, whose rows are seeds and no data sets, the lines join means.
    """
    is_study = "start" in table.columns
    log_t = read_column(table, LOG + "T")
    columns = {size: read_column(table, size) for size in SIZES if find_column(table, size)}
    figure, panels = plot.make_figure(len(sizes))
    for axes, size in zip(panels, sizes, strict=True):
        if axes is not panels[0]:
            axes.sharey(panels[0])  # T, to compare the slopes
        log_x = np.log(columns[size])
        other = next((name for name in columns if name != size), None)
        values = np.unique(columns[other]) if other else []
        if 2 <= len(values) <= len(plot.STYLES):
            noun = SIZES[other][1]
            for i, value in enumerate(values):
                rows = columns[other] == value
                draw = join_means if is_study else draw_line
                draw(axes, log_x[rows], log_t[rows], i, f"{value:,.10g} {noun}")
            axes.legend(fontsize=7, loc="upper center")
            axes.set_title(f"at equal numbers of {noun}, {len(log_t)} rows")
        elif is_study:
            axes.loglog(np.exp(log_x), np.exp(log_t), **plot.line_style(0) | {"linestyle": ""})
            axes.set_title(f"{len(log_t)} rows")
        else:
            slope = draw_line(axes, log_x, log_t)
            axes.set_title(f"{slope}, {len(log_t)} rows")
        axes.set(xlabel=SIZES[size][0], ylabel=plot.T_LABEL)
        plot.label_decades(axes.xaxis, axes.yaxis)
        ticks = np.unique(columns[size])
        if size == "steps" and len(ticks) <= TICKS:
            plot.label_values(axes.xaxis, ticks)
    if any(axes.get_legend() for axes in panels):
        # Room for the legends, above all points. The panels share the axis.
        low, high = panels[0].get_ylim()
        panels[0].set_ylim(low, high * (high / low) ** 0.4)
    return figure


def has_line(log_x: np.ndarray) -> bool:
    """Whether a line can be fitted: two coefficients, and for the interval two rows more."""
    return len(log_x) >= 4 and log_x.min() < log_x.max()


def draw_line(
    axes: Any, log_x: np.ndarray, log_t: np.ndarray, number: int = 0, label: str = ""
) -> str:
    """Points, least-squares line, and the line's 95 % interval over the rows (not of a new point).

    number: of the line style. Returns the slope in words, which the legend has, too, if there is a
    label. Points alone where no line can be fitted.
    """
    style = plot.line_style(number)
    axes.loglog(np.exp(log_x), np.exp(log_t), **style | {"linestyle": ""})
    if not has_line(log_x):
        axes.lines[-1].set_label(label)
        return ""
    fit = OLS(log_t, np.column_stack([np.ones_like(log_x), log_x])).fit()
    ends = np.linspace(log_x.min(), log_x.max(), 100)
    line = fit.get_prediction(np.column_stack([np.ones_like(ends), ends]))
    x, y, band = np.exp(ends), np.exp(line.predicted), np.exp(line.conf_int().T)
    colour = style["color"] if label else "0.2"
    axes.loglog(x, y, color=colour, linestyle=style["linestyle"], linewidth=1)
    axes.fill_between(x, *band, color=colour, alpha=0.15, linewidth=0)
    low, high = fit.conf_int()[1]
    slope = f"slope {fit.params[1]:.2f} (95 % {low:.2f} to {high:.2f})"
    if label:
        # The legend shows marker and line.
        axes.plot([], [], label=f"{label}: {slope}", **style)
    return slope


def join_means(axes: Any, log_x: np.ndarray, log_t: np.ndarray, number: int, label: str) -> None:
    """Points, and a line through their geometric means at every x."""
    style = plot.line_style(number)
    axes.loglog(np.exp(log_x), np.exp(log_t), **style | {"linestyle": ""})
    x, position = np.unique(log_x, return_inverse=True)
    means = np.bincount(position, log_t) / np.bincount(position)
    axes.loglog(np.exp(x), np.exp(means), label=label, **style | {"linewidth": 1})


def draw_regression(table: Table, names: list[str]) -> Figure:
    """ln T as fitted on the named columns and as measured; on the grey line they agree.

    Raises InputError where the regression cannot be fitted.
    """
    result = regress(table, names)
    figure, (axes,) = plot.make_figure(1)
    measured, fitted = result.fit.model.endog, result.fit.fittedvalues
    ends = [min(measured.min(), fitted.min()), max(measured.max(), fitted.max())]
    axes.plot(ends, ends, color="0.7", linewidth=0.8, zorder=0)
    axes.plot(measured, fitted, "o", markersize=4)
    if len(table.rows) <= NAMED:
        for line, x, y in zip(table.rows.index, measured, fitted, strict=True):
            # Away from the line. A data set's name may hold dollar signs.
            axes.annotate(
                table.name(line),
                (x, y),
                xytext=(-5 if y > x else 5, 0),
                textcoords="offset points",
                horizontalalignment="right" if y > x else "left",
                verticalalignment="center",
                fontsize=6,
                parse_math=False,
            )
        axes.margins(x=0.25)
    axes.set(xlabel="ln T, measured", ylabel="ln T, fitted")
    axes.set_title(result.equation.replace("log T = ", "ln T = "), parse_math=False, fontsize=9)
    return figure


# --- Figures of a study ---


def figures_of_study(table: Table, whole: Table) -> dict[str, Figure]:
    """The further figures of a study; says which are left out, and why.

    table: the rows that compare; whole: all rows, with the random starts. Raises InputError for a
    size or T of a layer that is no number (infinity is one for T), and as `same_budget`.
    """
    rows, layers = whole.rows.copy(), layer_columns(whole)
    for column in ("samples", "steps", *layers):
        if column in rows:
            rows[column] = read_column(whole, column, finite=column not in layers)
    runs = rows.loc[table.rows.index]
    missing = [column for column in ("samples", "steps", "seed") if column not in rows.columns]
    if missing or not layers:
        say(f"not drawn: layers, depth; {whole.path} has no column {(*missing, 'T LAYER')[0]}")
        return attempt("predicted", draw_predicted, table)
    budgets = same_budget(runs, rows[rows["start"].isin(RANDOM)])
    return {
        **attempt("layers", draw_layers, runs, layers),
        **attempt("depth", draw_depth, budgets, layers),
        **attempt("predicted", draw_predicted, table),
    }


def draw_layers(runs: pd.DataFrame, layers: list[str]) -> Figure:
    """T over the blocks: a panel per data set and number of images, a line per number of steps.

    Of more numbers of steps than line styles, the largest are drawn. Raises InputError without
    runs.
    """
    if runs.empty:
        raise InputError("there are no runs from theta_A")
    groups = sorted(group_rows(runs, (*TASK, "samples")), key=lambda rows: rows["samples"].iloc[0])
    steps = sorted(runs["steps"].unique())
    figure, panels = plot.make_figure(len(groups), 2 if len(groups) == 4 else plot.COLUMNS)
    drawn = []
    for axes, rows in zip(panels, groups, strict=True):
        curves = [
            mean_curve(f"{s:,.10g} steps ({seeds(of_s)})", of_s[layers], steps.index(s))
            for s, of_s in largest_steps(rows)
        ]
        plot.draw_curves(axes, curves, legend="lower left")
        axes.set_title(task(rows), parse_math=False)
        drawn += curves
    # Room for the legends, below all curves.
    share_limits(panels, drawn, below=3)
    return figure


def draw_depth(budgets: list[tuple[pd.DataFrame, pd.DataFrame]], layers: list[str]) -> Figure:
    """T, T0 and T / T0 over the blocks, a line per number of steps.

    budgets: runs from theta_A and from random starts. Of one data set and number of images: those
    with the most runs. T / T0 is of geometric means over seeds and starts and has no band. Raises
    InputError without budgets.
    """
    if not budgets:
        raise InputError("there is no random start at the budget of a run from theta_A")
    tasks = group_rows(pd.concat([runs for runs, _ in budgets]), (*TASK, "samples"))
    chosen = max(tasks, key=len)
    budgets = [pair for pair in budgets if pair[0].index[0] in chosen.index]
    budgets.sort(key=lambda pair: pair[0]["steps"].iloc[0])
    t, t0, ratios = [], [], []
    for i, (runs, random) in enumerate(budgets[-len(plot.STYLES) :]):
        steps = f"{runs['steps'].iloc[0]:,.10g} steps"
        logs = (log_layers(rows, layers).mean(axis=0) for rows in (runs, random))
        t.append(mean_curve(f"{steps} ({seeds(runs)})", runs[layers], i))
        t0.append(mean_curve(f"{steps} ({seeds(random)})", random[layers], i))
        ratios.append(plot.Curve(np.exp(np.subtract(*logs)), label=steps, style=i))

    figure, panels = plot.make_figure(3)
    for axes, curves, label, title in zip(
        panels,
        (t, t0, ratios),
        ("$T$", "$T_0$", "$T / T_0$"),
        (task(chosen), "the same from random starts", "falls with depth whatever $T$ does"),
        strict=True,
    ):
        # T0 rises with depth.
        plot.draw_curves(axes, curves, legend="lower right" if curves is t0 else "best")
        axes.set_ylabel(label)
        # A name may hold dollar signs.
        axes.set_title(title, parse_math=curves is ratios)
    share_limits(panels[:2], t + t0)
    return figure


def draw_predicted(table: Table) -> Figure:
    """T as measured and as predicted from N and S by the fit to the other rows.

    table: rows that compare. Raises InputError where the regression cannot be fitted.
    """
    result = regress(table, ["log_N", "log_steps"])
    measured = np.exp(result.fit.model.endog)
    predicted = np.exp(result.fit.model.endog - result.influence.resid_press)
    figure, (axes,) = plot.make_figure(1)
    ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
    axes.loglog(ends, ends, color="0.7", linewidth=0.8, zorder=0)
    steps = read_column(table, "steps")
    distinct = np.unique(steps)
    several = len(distinct) <= len(plot.STYLES)
    for i, s in enumerate(distinct if several else [None]):
        of_size = steps == s if several else slice(None)
        style = plot.line_style(i) | {"linestyle": ""}
        label = f"{s:,.10g} steps" if several else None
        axes.loglog(measured[of_size], predicted[of_size], label=label, **style)
    if several:
        axes.legend(fontsize=8)
    slopes = " ".join(
        f"{'-' if x < 0 else '+'} {abs(x):.2f} ln {size}"
        for x, size in zip(result.slopes, "NS", strict=True)
    )
    axes.set_title(f"one line, ln T = a {slopes}, {len(measured)} rows", fontsize=9)
    axes.set(xlabel=f"{plot.T_LABEL}, measured", ylabel=f"{plot.T_LABEL}, from the other rows")
    plot.label_decades(axes.xaxis, axes.yaxis)
    return figure


def share_limits(
    panels: Sequence[Any], curves: Sequence[plot.Curve], *, below: float = 1.2
) -> None:
    """The same logarithmic axis of T in all panels, as far as the curves go: T = 1 says nothing.

    below: the smallest value over the lower end of the axis.
    """
    values = np.concatenate([curve.values for curve in curves])
    values = values[np.isfinite(values) & (values > 0)]
    for axes in panels:
        if len(values):
            axes.set_ylim(values.min() / below, values.max() * 1.2)
        plot.label_decades(axes.yaxis)


def largest_steps(rows: pd.DataFrame) -> list[tuple[float, pd.DataFrame]]:
    """Number of steps and its rows, in rising order; at most as many as line styles."""
    return list(rows.groupby("steps"))[-len(plot.STYLES) :]


def task(rows: pd.DataFrame) -> str:
    """Data set and number of images of the rows."""
    return f"{rows['dataset'].iloc[0]}, {rows['samples'].iloc[0]:,.10g} images"


def seeds(rows: pd.DataFrame) -> str:
    """The number of seeds, in words."""
    count = rows["seed"].nunique()
    return f"{count} seed" + ("s" if count > 1 else "")


def mean_curve(label: str, profiles: pd.DataFrame | np.ndarray, style: int = 0) -> plot.Curve:
    """Mean and sample standard deviation per layer; no band for a single run."""
    values = np.array(profiles, dtype=float)
    # A layer that did not move in one of the runs has neither.
    values[~np.isfinite(values)] = np.nan
    deviations = values.std(axis=0, ddof=1) if len(values) > 1 else None
    return plot.Curve(values.mean(axis=0), deviations, label, style)


# --- Figures of step 3's JSON files ---


class Profile(NamedTuple):
    """T of one result over the depth.

    layers: names, without the classifier, which is new. record: of its training, {} where the file
    has none. theta_r: its SHA-256, where it is known.
    """

    name: str
    transferability: float
    values: list[float]
    layers: list[str]
    record: dict[str, Any]
    theta_r: str | None


def read_profiles(path: Path) -> list[Profile]:
    """The results of a JSON file of step 3; InputError for any other file."""
    advice = "give a JSON file of step 3 (cal_transferability.py --json)"
    content = read_json(path, advice=advice)
    try:
        profiles = [read_profile(result, content.get("arch")) for result in content["results"]]
    except (ValueError, KeyError, TypeError, ArithmeticError):
        profiles = []
    if not profiles or not all(profile.layers for profile in profiles):
        raise InputError(f"{path} holds no results of step 3; {advice}")
    if content.get("r_is_substitute"):
        warn(f"{path}: theta_r is a substitute; not comparable with values from a true theta_r")
    return profiles


def read_profile(result: dict[str, Any], arch: str | None) -> Profile:
    """One entry of the results; a value that is not finite is stored by its name."""
    layers = result["layers"]
    record = dict(result.get("record") or {})
    if record:
        record["arch"] = arch
        if record.get("sum_lr") is not None:
            record["sum_lr"] = float(record["sum_lr"])
    return Profile(
        Path(result["b"]).stem,
        float(result["transferability"]),
        [float(layer["transferability"]) for layer in layers],
        [layer["name"] for layer in layers if layer["distance_a_b"] is not None],
        record,
        result.get("sha256_r"),
    )


def draw_profiles(profiles: list[Profile]) -> Figure:
    """A panel per result, as in the paper's figures: T over the blocks."""
    figure, panels = plot.make_figure(len(profiles))
    for axes, profile in zip(panels, profiles, strict=True):
        new = len(profile.values) > len(profile.layers)
        plot.draw_curve(axes, plot.Curve(profile.values, has_classifier=new))
        axes.set_title(f"{profile.name} (mean {profile.transferability:.2f})", parse_math=False)
    return figure


def draw_null(t: list[Profile], t0: list[Profile]) -> Figure:
    """T and T0 by depth, and T / T0; means where there are several results, which are seeds then.

    The band is one standard deviation of T; T / T0 is of geometric means. Raises InputError where
    the layers or the budgets differ.
    """
    for profile in [*t, *t0]:
        if profile.layers != t[0].layers:
            raise InputError(f"--null: {t[0].name} and {profile.name} have other layers")
    check_budgets(t, t0)
    names = t[0].layers
    values = [[x.values[: len(names)] for x in profiles] for profiles in (t, t0)]
    tables = [pd.DataFrame(rows, columns=names) for rows in values]
    real, random = (
        mean_curve(label, table, style)
        for style, (label, table) in enumerate(zip(("$T$", "$T_0$"), tables, strict=True))
    )
    figure, (left, right) = plot.make_figure(2)
    plot.draw_curve(left, real)
    plot.add_curve(left, random._replace(deviations=None))
    left.legend()
    left.set_title(f"$T$ {overall(t)}, $T_0$ {overall(t0)}")
    log_ratio = np.subtract(*(log_layers(table, names).mean(axis=0) for table in tables))
    plot.draw_curve(right, plot.Curve(np.exp(log_ratio)))
    right.set_ylabel("$T / T_0$")
    right.set_title(f"geometric mean {np.exp(np.nanmean(log_ratio)):.2f}")
    for axes in (left, right):
        axes.set_yscale("log")
        plot.label_decades(axes.yaxis)
    return figure


def check_budgets(t: list[Profile], t0: list[Profile]) -> None:
    """Raise InputError naming two results of unlike budgets; warn of results without a record.

    The labels of T0 may be random where those of T are true, as its start may be another.
    """
    known = [profile for profile in [*t, *t0] if profile.record]
    unknown = [profile.name for profile in [*t, *t0] if not profile.record]
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        warn(
            f"no record of the training of {unknown[0]}{more}: where T and T0 are of unlike "
            "budgets, T / T0 means nothing"
        )
    for profile in known[1:]:
        records = [known[0].record, profile.record]
        if any(profile is x for x in t0) and profile.record.get("labels") == "random":
            records = [record | {"labels": None} for record in records]
        differing = budget_differences(records)
        if len({known[0].theta_r, profile.theta_r} - {None}) > 1:
            differing.append("theta_r")
        if differing:
            raise InputError(
                f"{known[0].name} and {profile.name} differ in {', '.join(differing)}; T is "
                "divided by T0 at one budget only"
            )


def overall(profiles: list[Profile]) -> str:
    """Mean of the overall T, and the number of results."""
    mean = np.mean([profile.transferability for profile in profiles])
    return f"{mean:.2f} (n = {len(profiles)})"


# --- The figure of T along the way of fine-tuning ---


class Trajectory(NamedTuple):
    """Optimiser steps and T after every epoch in which T was measured.

    constant: the learning rate is. finished: the run is, so that its rate is annealed at the end.
    """

    name: str
    steps: np.ndarray
    values: np.ndarray
    constant: bool
    finished: bool


def read_trajectory(path: Path) -> Trajectory:
    """The curve of one X.csv. Raises InputError where it holds no T, or X.json is not beside it."""
    table = read_table(path)
    if "transferability" not in table.columns:
        raise InputError(f"{path} has no column transferability; finetune.py -r FILE measures it")
    # In an epoch in which nothing has moved yet, there is no T.
    table = table._replace(rows=table.rows[table.rows["transferability"] != ""])
    if table.rows.empty:
        raise InputError(f"{path} holds no value of T")
    advice = "it is written by finetune.py beside X.csv"
    record = read_json(path.with_suffix(".json"), advice=advice)
    return Trajectory(
        path.stem,
        read_column(table, "step"),
        read_column(table, "transferability"),
        constant=record.get("args", {}).get("scheduler") == "constant",
        finished=record.get("finished", False),
    )


def draw_trajectories(trajectories: list[Trajectory]) -> Figure:
    """T against steps on logarithmic axes; a filled star is an annealed end."""
    if len(trajectories) > len(plot.STYLES):
        raise InputError(
            f"{len(trajectories)} curves cannot be told apart; give at most {len(plot.STYLES)}"
        )
    figure, (axes,) = plot.make_figure(1)
    for i, run in enumerate(trajectories):
        style = plot.line_style(i)
        label = run.name + ("" if run.constant else " (not annealed)")
        axes.plot(run.steps, run.values, label=label, **style)
        if run.finished and not run.constant:
            end = style | {"marker": "*", "markersize": 12, "linestyle": "none"}
            axes.plot(run.steps[-1:], run.values[-1:], label=f"{run.name}, annealed", **end)
    axes.set(xscale="log", yscale="log", xlabel="Optimiser steps", ylabel=plot.T_LABEL)
    plot.label_decades(axes.xaxis, axes.yaxis)
    axes.legend(fontsize=7)
    axes.set_title("T along the way")
    return figure


# --- The command ---


def main(argv: list[str]) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings figures")
    parser.add_argument("table", nargs="?", type=Path, help="CSV file, as findings/published.csv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    parser.add_argument(
        "--json", nargs="+", action="extend", type=Path, default=[], help="files of step 3"
    )
    parser.add_argument(
        "--null", nargs="+", action="extend", type=Path, default=[], help="those with T0"
    )
    parser.add_argument(
        "--along", nargs="+", action="extend", type=Path, default=[], help="X.csv of finetune.py -r"
    )
    add_predictor_options(parser)
    args = parser.parse_args(argv)
    if args.null and not args.json:
        raise InputError("--null needs --json: T0 is drawn beside T")

    figures = {}
    if args.table:
        figures = figures_of_table(args.table, args.predictors + args.more, args.block)
    profiles, null = (
        [profile for path in paths for profile in read_profiles(path)]
        for paths in (args.json, args.null)
    )
    if profiles and "layers" in figures:
        raise InputError(
            f"the layers of {args.table} and of --json would be one file; draw them by two commands"
        )
    if profiles:
        figures["layers"] = draw_profiles(profiles)
    if null:
        figures["null"] = draw_null(profiles, null)
    if args.along:
        figures["along"] = draw_trajectories([read_trajectory(path) for path in args.along])
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
            plot.save_figure(figure, path)
            say(path.resolve())
