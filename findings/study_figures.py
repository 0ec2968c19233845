"""The figures of a study, from its table alone: layer-wise curves, T beside T0, predicted T.

Bands are one standard deviation over seeds, as in the figures of step 3.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from console import InputError
from measurement.plot import COLUMNS, make_figure

from .depth import BUDGET, layer_columns, profile, ratio
from .panels import (
    STYLES,
    T_LABEL,
    Curve,
    draw_curves,
    label_decades,
    line_style,
)
from .regression import regress
from .table import TASK, Row, Table, group_rows, read_column, settings

PREDICTORS = ["log_N", "log_steps"]


def check_cells(table: Table) -> None:
    """Raise InputError for a size or T of a layer that is no number; infinity is one for T."""
    for column in ("samples", "steps"):
        if column in table.columns:
            read_column(table, column)
    for column in layer_columns(table):
        read_column(table, column, finite=False)


def check_columns(table: Table) -> None:
    """Raise InputError where the table lacks what a study has."""
    missing = [column for column in ("samples", "steps", "seed") if column not in table.columns]
    if missing or not layer_columns(table):
        raise InputError(f"{table.path} has no column {(*missing, 'T LAYER')[0]}")


def draw_layers(table: Table) -> Figure:
    """T over the blocks: a panel per data set and number of images, a line per number of steps.

    table: rows that compare. Of more numbers of steps than STYLES, the largest are drawn. Raises
    InputError where there is nothing to draw.
    """
    check_columns(table)
    if not table.rows:
        raise InputError(f"{table.path} has no runs from theta_A")
    groups = sorted(group_rows(table.rows, (*TASK, "samples")).items(), key=lambda x: x[0][-1])
    steps = [s for s, _ in by_steps(table.rows)]
    figure, panels = make_figure(len(groups), 2 if len(groups) == 4 else COLUMNS)
    drawn = []
    for axes, ((dataset, _, images), rows) in zip(panels, groups, strict=True):
        curves = [
            mean_curve(f"{number(s)} steps ({seeds(found)})", steps.index(s), map(profile, found))
            for s, found in by_steps(rows)[-len(STYLES) :]
        ]
        draw_curves(axes, curves)
        axes.set_title(f"{dataset}, {number(images)} images", parse_math=False)
        drawn += [curve.values for curve in curves]
    share_limits(panels, drawn)
    return figure


def draw_depth(real: Table, whole: Table) -> Figure:
    """T, T0 and T / T0 over the blocks, a line per number of steps.

    real: the rows that compare; whole: all rows, with the null runs. Of one data set and number of
    images: those with the most runs that have null runs at the same budget. T0 is the mean of the
    null runs, and T / T0 takes it as given: its band is the spread of T. Raises InputError where
    there is nothing to draw.
    """
    check_columns(real)
    null = group_rows([row for row in whole.rows if row.cells["start"] == "null"], BUDGET)
    with_null = [row for row in real.rows if settings(row, BUDGET) in null]
    if not with_null:
        raise InputError(f"{real.path} has no null run at the budget of a run from theta_A")
    chosen = max(group_rows(with_null, (*TASK, "samples")).values(), key=len)
    t, t0, ratios = [], [], []
    for i, (s, rows) in enumerate(by_steps(chosen)[-len(STYLES) :]):
        chance = null[settings(rows[0], BUDGET)]
        t.append(mean_curve(f"{number(s)} steps ({seeds(rows)})", i, map(profile, rows)))
        t0.append(mean_curve(f"{number(s)} steps ({seeds(chance)})", i, map(profile, chance)))
        given = np.mean([profile(row) for row in chance], axis=0)
        each = [ratio(profile(row), given) for row in rows]
        ratios.append(mean_curve(f"{number(s)} steps", i, each))

    figure, panels = make_figure(3)
    row = chosen[0]
    task = f"{row.cells['dataset']}, {number(float(row.cells['samples']))} images"
    for axes, curves, label, title in zip(
        panels,
        (t, t0, ratios),
        ("$T$", "$T_0$", "$T / T_0$"),
        (task, "the same from random starts", "dashed: no better than chance"),
        strict=True,
    ):
        # T0 rises with depth.
        draw_curves(axes, curves, legend="lower right" if curves is t0 else "best")
        axes.set_ylabel(label)
        axes.set_title(title, parse_math=False)
    share_limits(panels[:2], [curve.values for curve in t + t0])
    return figure


def draw_predicted(table: Table) -> Figure:
    """T as measured and as predicted from N and S by the fit to the other rows.

    table: rows that compare. Raises InputError where the regression cannot be fitted.
    """
    found = regress(table, PREDICTORS)
    measured = found.fit.model.endog
    predicted = np.exp(measured - found.left_out)
    measured = np.exp(measured)
    figure, (axes,) = make_figure(1)
    ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
    axes.loglog(ends, ends, color="0.6", linewidth=0.8, linestyle="--")
    steps = read_column(table, "steps")
    distinct = np.unique(steps)
    several = len(distinct) <= len(STYLES)
    for i, s in enumerate(distinct if several else [None]):
        of_size = steps == s if several else slice(None)
        style = line_style(i) | {"linestyle": ""}
        label = f"{number(s)} steps" if several else None
        axes.loglog(measured[of_size], predicted[of_size], label=label, **style)
    if several:
        axes.legend(fontsize=8)
    b, c = found.fit.params[1:] / found.deviations
    slopes = " ".join(
        f"{'-' if x < 0 else '+'} {abs(x):.2f} ln {size}" for x, size in ((b, "N"), (c, "S"))
    )
    axes.set_title(
        f"ln T = a {slopes}, R2 {found.fit.rsquared:.2f}, {len(measured)} rows", fontsize=9
    )
    axes.set_xlabel(f"{T_LABEL}, measured")
    axes.set_ylabel(f"{T_LABEL}, from the other rows")
    for axis in (axes.xaxis, axes.yaxis):
        label_decades(axis)
    return figure


def share_limits(panels: Sequence[Any], curves: Sequence[Sequence[float]]) -> None:
    """The same logarithmic axis of T in all panels, as far as the curves go: T = 1 says nothing."""
    values = np.concatenate(curves)
    values = values[np.isfinite(values) & (values > 0)]
    for axes in panels:
        if len(values):
            axes.set_ylim(values.min() / 1.2, values.max() * 1.2)
        label_decades(axes.yaxis)


def by_steps(rows: list[Row]) -> list[tuple[float, list[Row]]]:
    """Number of steps and its rows, in rising order."""
    return sorted((key[0], found) for key, found in group_rows(rows, ("steps",)).items())


def number(size: float) -> str:
    """8,000 for 8000.0."""
    return f"{size:,.10g}"


def seeds(rows: list[Row]) -> str:
    """How many seeds the rows are of."""
    count = len({row.cells["seed"] for row in rows})
    return f"{count} seed" + ("s" if count > 1 else "")


def mean_curve(label: str, style: int, profiles: Iterable[Sequence[float]]) -> Curve:
    """Mean and sample standard deviation per layer; no band for a single run."""
    values = np.array(list(profiles))
    # A layer that did not move in one of the runs has neither.
    values[~np.isfinite(values)] = np.nan
    deviations = list(values.std(axis=0, ddof=1)) if len(values) > 1 else None
    return Curve(label, style, list(values.mean(axis=0)), deviations)
