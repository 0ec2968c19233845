"""Does T rise with depth? Spearman's correlation of depth with T, T0 and T / T0, run by run.

The layers of a network are not exchangeable, so no p-value comes from them: what is repeated are
seeds. The classifier is left out. T / T0 is taken where there are null runs at the very same
budget. T0 is their mean and is taken as given: the interval of T / T0 leaves the spread of T0
itself out. A correlation of T that its T0 has, too, says nothing about transfer.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from .slopes import interval
from .table import SETTINGS, TASK, Row, Table, group_rows, settings

PREFIX = "T "
# What runs must have in common for T / T0.
BUDGET = (*TASK, "samples", "steps", *SETTINGS)


def summary(table: Table) -> Iterable[str]:
    """A line per quantity: number of positive runs, and mean and t interval over seeds."""
    started = [row for row in table.rows if row.cells["start"] == "theta_A"]
    nulls = [row for row in table.rows if row.cells["start"] == "null"]
    null = {
        budget: np.mean([profile(row) for row in rows], axis=0)
        for budget, rows in group_rows(nulls, BUDGET).items()
    }
    for name, chosen, values in (
        ("T", started, profile),
        ("T0", nulls, profile),
        (
            "T / T0",
            [row for row in started if settings(row, BUDGET) in null],
            lambda row: ratio(profile(row), null[settings(row, BUDGET)]),
        ),
    ):
        if chosen:
            correlations = [depth_correlation(values(row)) for row in chosen]
            yield f"  {name:7}{positive(chosen, correlations)}"


def layer_columns(table: Table) -> list[str]:
    """Columns of T of a layer, in network order."""
    return [column for column in table.columns if column.startswith(PREFIX)]


def profile(row: Row) -> np.ndarray:
    """T of the layers in network order; infinite for one that did not move."""
    return np.array([float(cell) for key, cell in row.cells.items() if key.startswith(PREFIX)])


def ratio(t: np.ndarray, t0: np.ndarray) -> np.ndarray:
    """T / T0 of the layers; NaN for a layer that moved in neither."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return t / t0


def depth_correlation(values: Sequence[float]) -> float:
    """Spearman's rank correlation of a layer's value with its depth, -1 to 1.

    Equal values, such as the infinite T of layers that did not move, have the mean of their ranks;
    NaN is left out. NaN where all values are equal.
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    # The ranks of equal values are those up to the last of them.
    ranks = np.cumsum(counts) - (counts - 1) / 2
    if len(counts) < 2:
        return float("nan")
    return float(np.corrcoef(np.arange(len(values)), ranks[place])[0, 1])


def positive(rows: list[Row], correlations: list[float]) -> str:
    """How many are positive; mean and interval over the means of the seeds."""
    seeds = defaultdict(list)
    for row, correlation in zip(rows, correlations, strict=True):
        seeds[row.cells["seed"]].append(correlation)
    count = sum(correlation > 0 for correlation in correlations)
    means = np.array([np.mean(found) for found in seeds.values()])
    return f"positive in {count} of {len(rows)} runs, mean {interval(means)}"
