"""Images and steps, one thing changed, and depth: what the table of a study says.

    python -m findings summary findings/results.csv

Of the runs from theta_A with the settings alike: the slopes of ln T between neighbouring numbers of
steps S at equal numbers of images N, between neighbouring N at equal S, and at equal epochs, where
N and S grow by the same factor. The last is what data sets of different size show (published: -0.52
per ln N, 95 % -0.66 ... -0.38 over data sets). One line, ln T = a + b ln N + c ln S, is an
approximation: the intervals of its slopes hold its misfit, whose size is printed beside the
differences between seeds.

Then T of the runs whose weight decay, batch size, learning rate or number of classes is not that of
most, beside the run of the same images, steps, seed and theta_A; ratios are averaged by geometric
mean. Then Spearman's correlation of T with depth, for every setting and number of classes by
itself. Last T / T0, T0 being T of random starts at the same budget. It is no evidence about
transfer: T0 follows the width of the layers, so that T / T0 falls with depth whatever T does.

Where an interval is over seeds, it says so. Seeds repeat the draw and order of the images and the
new classifier; they stand for no other network and no other data set.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from console import ArgumentParser, InputError, say
from measurement.checks import budget_differences

from .published import depth_correlation
from .reader import (
    RANDOM,
    SETTINGS,
    TASK,
    Table,
    check_columns,
    check_runs,
    compared,
    describe,
    group_rows,
    is_number,
    read_column,
    read_table,
)
from .regression import mean_interval

NUMBERS = ("samples", "steps", "transferability")
# a_sha256 came later: one theta_A is meant where it is missing.
NEEDED = ("start", *NUMBERS, "seed", "dataset", "classes", *SETTINGS[:-1])
# What runs must have in common for T / T0; and columns that may hold more of a run's budget, under
# the names of its record.
BUDGET = (*TASK, "samples", "steps", *SETTINGS)
RECORDED = ("arch", "image_size", "sum_lr", "last_batch", "processes", "optimizer", "kept")
# What may be changed in a run, and what it has in common with the run that it is compared with.
CHANGED = ("classes", *SETTINGS[:-1])
SAME = ("dataset", "folder", "labels", SETTINGS[-1], "samples", "steps", "seed")
PUBLISHED = "published slope of ln T on ln N: -0.52 (95 % over data sets -0.66 ... -0.38)"
# Spread within cells, relative to that of all runs, below which it is rounding.
ROUNDING = 1e-12


def layer_columns(table: Table) -> list[str]:
    """Columns of T of a layer, in network order."""
    return [column for column in table.columns if column.startswith("T ")]


def read_numbers(table: Table) -> pd.DataFrame:
    """The rows, with NUMBERS and T of the layers as numbers.

    Raises InputError naming row and column of a cell that is no number as it must be, and for a
    run that is there twice.
    """
    check_runs(table)
    # A run of several blocks counts once.
    rows = table.rows.drop_duplicates([x for x in table.columns if x != "block"])
    table = table._replace(rows=rows)
    rows = rows.copy()
    for column in NUMBERS:
        rows[column] = read_column(table, column, positive=True)
    for column in layer_columns(table):
        # Infinite for a layer that did not move.
        rows[column] = read_column(table, column, finite=False)
    return rows


def lines(table: Table) -> list[str]:
    """The lines of the summary. Raises InputError as `read_numbers` and `same_budget`."""
    rows, layers = read_numbers(table), layer_columns(table)
    runs, starts = rows[rows["start"] == "theta_A"], rows[rows["start"].isin(RANDOM)]
    changed = list(changed_lines(runs))
    if changed:
        changed.insert(0, "one thing changed (ratio: geometric mean over seeds)")
    return [
        *slope_lines(runs),
        *changed,
        *profile_lines(runs, layers),
        *null_lines(same_budget(runs, starts), layers),
    ]


# --- Images and steps ---


def slope_lines(runs: pd.DataFrame) -> Iterator[str]:
    """The slopes of every group of runs with one setting."""
    # Which theta_A it is, is only said where there are several.
    several = runs["a_sha256"].nunique() > 1 if "a_sha256" in runs else False
    shown = [*TASK, *(column for column in SETTINGS if several or column != "a_sha256")]
    any_slope = False
    for group in group_rows(runs, (*TASK, *SETTINGS)):
        # Of the seeds that have all pairs (N, S), if there are any.
        *_, chosen = balanced(group)
        slopes = [*local_lines(chosen), *epoch_lines(chosen)]
        if slopes:
            any_slope = True
            yield f"{describe(group.iloc[0], shown)}:"
            yield from slopes
            for runs_of_fit in balanced(group):
                yield from fit_lines(runs_of_fit)
    if any_slope:
        yield PUBLISHED
    else:
        yield "no slopes of ln T: they take runs of one setting and seed whose N or S differs"


def balanced(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The runs at the pairs (N, S) that all seeds have; and those of the seeds that have all pairs.

    Once only where these are the same. All seeds have the same pairs then, or a curve that is no
    line would pass for noise of the seeds.
    """
    pairs = runs.groupby(["samples", "steps"])["seed"]
    common = runs[pairs.transform("size") == runs["seed"].nunique()]
    complete = runs[runs.groupby("seed")["seed"].transform("size") == pairs.ngroups]
    return [common] if len(common) == len(runs) or complete.empty else [common, complete]


def cell_means(runs: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    """Mean over the seeds at every N (rows) and S (columns); NaN where there is no run."""
    cells = runs.assign(value=values)
    return cells.pivot_table(index="samples", columns="steps", values="value")


def local_lines(runs: pd.DataFrame) -> Iterator[str]:
    """Two tables: slopes of ln T between neighbouring S at every N, and the other way round."""
    means = cell_means(runs, np.log(runs["transferability"]))
    for by, of, table in (("S", "N", means.T), ("N", "S", means)):
        slopes = local_slopes(table)
        if slopes.notna().any(axis=None):
            yield f"  slope of ln T on ln {by} at equal {of}, mean over {seeds_in_words(runs)}"
            yield from matrix(slopes, of)


def local_slopes(means: pd.DataFrame) -> pd.DataFrame:
    """The slopes between neighbouring rows on the logarithm of their index."""
    slopes = means.diff().div(np.log(means.index.to_series()).diff(), axis=0)[1:]
    slopes.index = [f"{low:.10g} -> {high:.10g}" for low, high in pairwise(means.index)]
    return slopes


def epoch_lines(runs: pd.DataFrame) -> Iterator[str]:
    """The slope of every two neighbouring cells whose N and S differ by the same factor."""
    by_cell = {
        cell: rows.set_index("seed")["transferability"].map(np.log)
        for cell, rows in runs.groupby(["samples", "steps"])
    }
    sizes = [pairwise(np.unique(runs[column])) for column in ("samples", "steps")]
    heading = ["  slope of ln T on ln N at equal epochs, where S grows with N"]
    for n, s in product(*sizes):
        low, high = (by_cell.get(cell) for cell in zip(n, s, strict=True))
        factor = n[1] / n[0]
        if low is None or high is None or not np.isclose(factor, s[1] / s[0]):
            continue
        yield from heading
        heading.clear()
        cells = f"N {n[0]:.10g} -> {n[1]:.10g}, S {s[0]:.10g} -> {s[1]:.10g}"
        slopes = ((high - low) / np.log(factor)).dropna()
        yield f"    {cells:32}{interval(slopes.to_list())}"


def fit_lines(runs: pd.DataFrame) -> Iterator[str]:
    """The slopes of one line through all cells, and how far the line misses them.

    Least squares with an intercept for each seed. None where N and S cannot be told apart.
    """
    log_n, log_s, log_t = np.log(runs[[*NUMBERS]].to_numpy(dtype=float)).T
    seeds = pd.get_dummies(runs["seed"], dtype=float).to_numpy()
    x = np.column_stack([log_n, log_s, seeds])
    if len(x) <= x.shape[1] or np.linalg.matrix_rank(x) < x.shape[1]:
        return
    n, s = (
        ", ".join(f"{size:.10g}" for size in np.unique(runs[column]))
        for column in ("samples", "steps")
    )
    fit = OLS(log_t, x).fit()
    yield f"  one line, ln T = a + b ln N + c ln S: {seeds_in_words(runs)}; N {n}; S {s}"
    yield f"   (intervals over {len(runs)} runs, the misfit of the line in the error)"
    for name, contrast in (("b", (1, 0)), ("c", (0, 1)), ("b + c", (1, 1))):
        test = fit.t_test([*contrast, *[0] * seeds.shape[1]])
        low, high = test.conf_int()[0]
        yield f"    {name:7}{test.effect[0]:+.3f} (95 % {low:+.3f} ... {high:+.3f})"
    yield from misfit_lines(np.column_stack([log_n, log_s]), log_t)


def misfit_lines(sizes: np.ndarray, log_t: np.ndarray) -> Iterator[str]:
    """The test of the line against the spread of the seeds, where cells have several.

    sizes: a row per run, its ln N and ln S.
    """
    _, cell, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    cell = cell.reshape(-1)
    means = np.bincount(cell, log_t) / counts
    pure = np.sum((log_t - means[cell]) ** 2)
    line = OLS(log_t, np.column_stack([np.ones(len(log_t)), sizes])).fit()
    of_misfit, of_seeds = len(counts) - 3, len(log_t) - len(counts)
    if of_misfit > 0 and of_seeds > 0 and pure > ROUNDING * np.sum((log_t - log_t.mean()) ** 2):
        error = pure / of_seeds
        f = (line.ssr - pure) / of_misfit / error
        yield (
            f"    misfit against the spread of the seeds: F({of_misfit}, {of_seeds}) = {f:.1f}; "
            f"residuals {np.sqrt(line.mse_resid):.3f}, seeds {np.sqrt(error):.3f} in ln T"
        )


# --- One thing changed, depth ---


def changed_lines(runs: pd.DataFrame) -> Iterator[str]:
    """A line per kind of changed run: T of both over the seeds that both have, and their ratio."""
    usual = max(group_rows(runs, CHANGED), key=len, default=runs)
    # Each run is compared with the usual one of its own seed, so that the ratio has an interval.
    reference = usual["transferability"].set_axis(keys(usual, SAME))
    for group in group_rows(runs.drop(usual.index), (*CHANGED, "samples", "steps")):
        other = reference.reindex(keys(group, SAME)).to_numpy()
        matched = ~np.isnan(other)
        if not matched.any():
            continue
        first, t, other = group.iloc[0], group["transferability"][matched], other[matched]
        differs = compared(group, CHANGED).iloc[0] != compared(usual, CHANGED).iloc[0]
        changes = ", ".join(f"{column} {first[column]}" for column in differs.index[differs])
        mean, low, high = np.exp(mean_interval(np.log(t / other)))
        spread = f"95 % over {len(t)} seeds {low:.3f} ... {high:.3f}" if len(t) > 1 else "one seed"
        yield (
            f"  {changes}: T {t.mean():.2f} beside {other.mean():.2f} (N {first['samples']:.10g}, "
            f"S {first['steps']:.10g}), ratio {mean:.3f} ({spread})"
        )


def profile_lines(runs: pd.DataFrame, layers: list[str]) -> Iterator[str]:
    """The rank correlation of T with depth of every cell, for every setting by itself."""
    if runs.empty or not layers:
        return
    yield f"rank correlation of T with depth ({len(layers)} layers), mean over the seeds of a cell"
    correlations = pd.Series(map(depth_correlation, runs[layers].to_numpy()), runs.index)
    groups = group_rows(runs, (*TASK, *SETTINGS))
    for group in sorted(groups, key=lambda rows: float(rows["classes"].iloc[0] or 0)):
        values = correlations[group.index]
        title = describe(group.iloc[0], [*TASK, *SETTINGS[:-1]])
        yield f"  {title}: rises in {(values > 0).sum()} of {len(values)} runs"
        yield from matrix(cell_means(group, values).T, "N", "S ")


def null_lines(
    budgets: Sequence[tuple[pd.DataFrame, pd.DataFrame]], layers: list[str]
) -> Iterator[str]:
    """Two lines per budget: geometric mean over the layers of T / T0, and the profiles.

    budgets: runs from theta_A and from random starts.
    """
    if not budgets or not layers:
        return
    yield "T / T0, geometric mean over the layers; T0: the same from random starts"
    yield "  no evidence about transfer: T0 rises with the width of the layers, so T / T0 falls"
    yield "  with depth whatever T does; all runs of a line share one T0"
    for runs, random in budgets:
        logs = log_layers(runs, layers), log_layers(random, layers)
        moved = ~np.isnan(np.vstack(logs)).any(axis=0)
        if not moved.any():
            continue
        t, t0 = (values[:, moved] for values in logs)
        profiles = t.mean(axis=0), t0.mean(axis=0), t.mean(axis=0) - t0.mean(axis=0)
        rho, rho_0, rho_ratio = map(depth_correlation, profiles)
        spread = "no interval"
        if min(len(t), len(t0)) > 1:
            means = CompareMeans(DescrStatsW(t.mean(axis=1)), DescrStatsW(t0.mean(axis=1)))
            low, high = np.exp(means.tconfint_diff(usevar="unequal"))
            spread = f"95 % over {len(t)} seeds and {len(t0)} starts {low:.2f} ... {high:.2f}"
        yield (
            f"  N {runs['samples'].iloc[0]:.10g}, S {runs['steps'].iloc[0]:.10g}: "
            f"{np.exp(profiles[2].mean()):.2f} ({spread})"
        )
        yield (
            f"    rank correlation with depth: T {rho:+.2f}, T0 {rho_0:+.2f}, "
            f"T / T0 {rho_ratio:+.2f}"
        )


def log_layers(rows: pd.DataFrame, layers: list[str]) -> np.ndarray:
    """ln T, a row per run and a column per layer; NaN for a layer that has no such number."""
    values = rows[layers].to_numpy(dtype=float)
    return np.log(np.where(np.isfinite(values) & (values > 0), values, np.nan))


def same_budget(
    runs: pd.DataFrame, starts: pd.DataFrame
) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The runs from theta_A and from random starts of every budget that has both.

    Raises InputError naming two lines that other columns of the table show to be of unlike budgets.
    """
    budgets = []
    for rows in group_rows(pd.concat([runs, starts]), BUDGET):
        is_random = rows["start"].isin(RANDOM)
        if is_random.any() and not is_random.all():
            for line, row in rows.iterrows():
                differing = budget_differences([recorded(rows.iloc[0]), recorded(row)])
                if differing:
                    raise InputError(
                        f"lines {rows.index[0]} and {line} of the table differ in "
                        f"{', '.join(differing)}: T / T0 is of one budget only"
                    )
            budgets.append((rows[~is_random], rows[is_random]))
    return budgets


def recorded(row: pd.Series) -> dict[str, str | float | None]:
    """What a row holds of the record of its run, beside the columns of BUDGET."""
    cells = {column: row.get(column) or None for column in RECORDED}
    return {name: float(x) if x and is_number(x) else x for name, x in cells.items()}


# --- Words ---


def keys(rows: pd.DataFrame, columns: Sequence[str]) -> pd.MultiIndex:
    """An index of the rows by these columns, equal where the rows compare as equal."""
    return pd.MultiIndex.from_frame(compared(rows, columns))


def interval(values: Sequence[float]) -> str:
    """Mean over seeds, and the 95 % t interval where there are several."""
    mean, low, high = mean_interval(values)
    if len(values) == 1:
        return f"{mean:+.3f} (one seed, no interval)"
    return f"{mean:+.3f} (95 % over {len(values)} seeds {low:+.3f} ... {high:+.3f})"


def seeds_in_words(rows: pd.DataFrame) -> str:
    """The number of seeds, in words."""
    number = rows["seed"].nunique()
    return f"{number} seed" + "s" * (number > 1)


def matrix(table: pd.DataFrame, of_columns: str, of_rows: str = "") -> Iterator[str]:
    """The lines of a table of slopes or correlations; a dash where a cell is empty."""
    names = [label if isinstance(label, str) else f"{label:.10g}" for label in table.index]
    yield f"    {'':14}" + "".join(f"{f'{of_columns} {size:.10g}':>9}" for size in table.columns)
    for name, (_, row) in zip(names, table.iterrows(), strict=True):
        cells = "".join(f"{'-' if np.isnan(x) else f'{x:+.2f}':>9}" for x in row)
        yield f"    {of_rows + name:14}{cells}"


def main(argv: list[str]) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings summary")
    parser.add_argument("results", type=Path, help="results.csv of a study")
    table = read_table(parser.parse_args(argv).results)
    check_columns(table, NEEDED, "the table of a study")
    for line in lines(table):
        say(line)
