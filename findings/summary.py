"""Data or steps, one thing changed, and depth: what the table of a study says.

    python -m findings summary findings/results.csv

First b and c of ln T = a + b ln N + c ln S (N: training images, S: optimiser steps). At equal
epochs S is proportional to N, so the slope of ln T on ln N over data sets of different size
(published: -0.52, 95 % -0.66 ... -0.38) estimates b + c. Then T of the runs whose weight decay,
batch size, learning rate or number of classes is not that of most, beside the run of the same
images, steps, seed and theta_A. Then Spearman's correlation of depth with T, with T0, from random
starts, and with T / T0; T0 is the mean of the null runs at the same budget and is taken as given.

Seeds are the independent repetitions: means and 95 % t intervals are over them, not over rows or
layers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from console import ArgumentParser, say

from .published import PUBLISHED, depth_correlation
from .reader import (
    SETTINGS,
    TASK,
    Table,
    check_columns,
    check_runs,
    compared,
    describe,
    group_rows,
    read_column,
    read_table,
)
from .regression import mean_interval

NUMBERS = ("samples", "steps", "transferability", "probe_loss")
# a_sha256 came later: one theta_A is meant where it is missing.
NEEDED = ("start", *NUMBERS, "seed", *TASK, *SETTINGS[:-1])
# What runs must have in common for T / T0.
BUDGET = (*TASK, "samples", "steps", *SETTINGS)
# What may be changed in a run, and what it has in common with the run that it is compared with.
CHANGED = (*TASK[1:], *SETTINGS[:-1])
SAME = (TASK[0], SETTINGS[-1], "samples", "steps", "seed")
PUBLISHED_SLOPE = (-0.52, -0.66, -0.38)


def layer_columns(table: Table) -> list[str]:
    """Columns of T of a layer, in network order."""
    return [column for column in table.columns if column.startswith("T ")]


def read_numbers(table: Table) -> pd.DataFrame:
    """The rows, with NUMBERS and T of the layers as numbers.

    Raises InputError naming row and column of a cell that is no number as it must be, and for a
    run that is there twice.
    """
    check_runs(table)
    rows = table.rows.copy()
    for column in NUMBERS:
        rows[column] = read_column(table, column, positive=column != "probe_loss")
    for column in layer_columns(table):
        # Infinite for a layer that did not move.
        rows[column] = read_column(table, column, finite=False)
    return rows


def lines(table: Table) -> list[str]:
    """The lines of the summary. Raises InputError as `read_numbers`."""
    rows, layers = read_numbers(table), layer_columns(table)
    runs, nulls = (rows[rows["start"] == start] for start in ("theta_A", "null"))
    changed = list(changed_lines(runs))
    published = depth_correlation(PUBLISHED[:-1])
    return [
        *slope_lines(runs),
        *(["one thing changed", *changed] if changed else []),
        "rank correlation of depth with",
        *depth_lines(runs, nulls, layers),
        f"  published values of CIFAR-10: {published:+.2f} over {len(PUBLISHED) - 1} layers",
    ]


def slope_lines(runs: pd.DataFrame) -> Iterator[str]:
    """b, c and b + c of every group of runs that can be fitted."""
    # Which theta_A it is, is only said where there are several.
    several = runs["a_sha256"].nunique() > 1 if "a_sha256" in runs else False
    shown = [*TASK, *(column for column in SETTINGS if several or column != "a_sha256")]
    fitted = False
    for group in group_rows(runs, (*TASK, *SETTINGS)):
        for chosen in balanced(group):
            if slopes(chosen) is not None:
                fitted = True
                yield f"{describe(group.iloc[0], shown)}:"
                yield from fit_lines(chosen)
    if fitted:
        mean, low, high = PUBLISHED_SLOPE
        yield f"published slope of ln T on ln N, over data sets: {mean} (95 % {low} ... {high})"
    else:
        yield (
            "ln T = a + b ln N + c ln S is not fitted: that takes four runs a seed, of the same "
            "settings, in which N and S vary, and not only together"
        )


def balanced(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The runs at the pairs (N, S) that all seeds have; and those of the seeds that have all pairs.

    Once only where these are the same. All seeds of a fit have the same pairs, or a curve that is
    no line would pass for noise of the seeds.
    """
    pairs = runs.groupby(["samples", "steps"])["seed"]
    common = runs[pairs.transform("size") == runs["seed"].nunique()]
    complete = runs[runs.groupby("seed")["seed"].transform("size") == pairs.ngroups]
    return [common] if len(common) == len(runs) or complete.empty else [common, complete]


def slopes(runs: pd.DataFrame, further: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray] | None:
    """b and c of every seed, by least squares of ln T on ln N, ln S and the columns `further`.

    None where a seed has no more runs than coefficients, or its predictors cannot be told apart.
    """
    fits = []
    for _, seed in runs.groupby("seed", sort=False):
        sizes = np.log(seed[["samples", "steps"]])
        x = np.column_stack([np.ones(len(seed)), sizes, seed[[*further]]])
        if len(x) <= x.shape[1] or np.linalg.matrix_rank(x) < x.shape[1]:
            return None
        fits.append(np.linalg.lstsq(x, np.log(seed["transferability"]), rcond=None)[0])
    return tuple(np.transpose(fits)[1:3]) if fits else None


def fit_lines(runs: pd.DataFrame) -> Iterator[str]:
    """The slopes over the seeds, without and with the loss of the probe as a predictor."""
    n, s = (
        ", ".join(f"{size:.10g}" for size in np.unique(runs[column]))
        for column in ("samples", "steps")
    )
    yield f" {runs['seed'].nunique()} seeds; N {n}; S {s}"
    for title, further in (
        ("ln T = a + b ln N + c ln S", ()),
        ("the same with the training loss of the probe as a further predictor", ("probe_loss",)),
    ):
        fitted = slopes(runs, further)
        if fitted is not None:
            b, c = fitted
            yield f"  {title}"
            yield f"    b      {interval(b)}"
            yield f"    c      {interval(c)}"
            yield f"    b + c  {interval(b + c)}"


def interval(values: Sequence[float]) -> str:
    """Mean over seeds, and the 95 % t interval where there are several."""
    mean, low, high = mean_interval(values)
    if len(values) == 1:
        return f"{mean:+.3f} (one seed, no interval)"
    return f"{mean:+.3f} (95 % {low:+.3f} ... {high:+.3f}, {len(values)} seeds)"


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
        mean, low, high = mean_interval(t / other)
        spread = f"95 % {low:.3f} ... {high:.3f}, {len(t)} seeds" if len(t) > 1 else "one seed"
        yield (
            f"  {changes}: T {t.mean():.2f} beside {other.mean():.2f} (N {first['samples']:.10g}, "
            f"S {first['steps']:.10g}), ratio {mean:.3f} ({spread})"
        )


def keys(rows: pd.DataFrame, columns: Sequence[str]) -> pd.MultiIndex:
    """An index of the rows by these columns, equal where the rows compare as equal."""
    return pd.MultiIndex.from_frame(compared(rows, columns))


def chance(runs: pd.DataFrame, nulls: pd.DataFrame, layers: list[str]) -> np.ndarray:
    """T0 of the layers at the budget of every run: the mean of its null runs, NaN without any."""
    means = (
        nulls[layers]
        .set_axis(keys(nulls, BUDGET))
        .groupby(level=list(range(len(BUDGET))), sort=False)
    )
    return means.mean().reindex(keys(runs, BUDGET)).to_numpy()


def depth_lines(runs: pd.DataFrame, nulls: pd.DataFrame, layers: list[str]) -> Iterator[str]:
    """A line per quantity: number of positive runs, and mean and t interval over seeds."""
    t0 = chance(runs, nulls, layers)
    has_null = keys(runs, BUDGET).isin(keys(nulls, BUDGET))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = runs[has_null][layers] / t0[has_null]
    for name, rows, values in (
        ("T", runs, runs[layers]),
        ("T0", nulls, nulls[layers]),
        ("T / T0", runs[has_null], ratio),
    ):
        if len(rows):
            correlations = pd.Series(map(depth_correlation, values.to_numpy()), rows.index)
            seeds = correlations.groupby(rows["seed"], sort=False)
            means = [seed.mean(skipna=False) for _, seed in seeds]
            positive = f"positive in {(correlations > 0).sum()} of {len(rows)} runs"
            yield f"  {name:7}{positive}, mean {interval(means)}"


def main(argv: list[str]) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings summary")
    parser.add_argument("results", type=Path, help="results.csv of a study")
    table = read_table(parser.parse_args(argv).results)
    check_columns(table, NEEDED, "the table of a study")
    for line in lines(table):
        say(line)
