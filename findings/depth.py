"""Does T rise with depth? Spearman's correlation of depth with T, T0 and T / T0, run by run.

The layers of a network are not exchangeable, so no p-value comes from them: what is repeated are
seeds. The classifier is left out. T0 is the mean over the null runs with the same number of steps,
and a correlation of T that its T0 has, too, says nothing about transfer.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from findings.published import PUBLISHED, depth_correlation
from findings.slopes import interval
from findings.table import Table

PREFIX = "T "


def summary(table: Table) -> Iterable[str]:
    """A line per quantity: number of positive runs, and mean and t interval over seeds."""
    rows = [row.cells for row in table.rows]
    null = {
        steps: np.mean([profile(row) for row in found], axis=0)
        for steps, found in by(rows, "steps", start="null").items()
    }
    started = [row for row in rows if row["start"] == "theta_A"]
    with_null = [row for row in started if row["steps"] in null]
    for name, chosen, values in (
        ("T", started, profile),
        ("T0", [row for row in rows if row["start"] == "null"], profile),
        ("T / T0", with_null, lambda row: profile(row) / null[row["steps"]]),
    ):
        if chosen:
            correlations = [depth_correlation(values(row)) for row in chosen]
            yield f"  {name:7}{describe(chosen, correlations)}"
    if started:
        published = depth_correlation(PUBLISHED[:-1])
        yield f"  published values of CIFAR-10: {published:+.2f} over {len(PUBLISHED) - 1} layers"


def profile(row: dict[str, str]) -> np.ndarray:
    """T of the layers in network order."""
    return np.array([float(cell) for key, cell in row.items() if key.startswith(PREFIX)])


def by(rows: list[dict[str, str]], key: str, *, start: str) -> dict[str, list[dict[str, str]]]:
    """The rows of one kind of start, by a column."""
    groups = defaultdict(list)
    for row in rows:
        if row["start"] == start:
            groups[row[key]].append(row)
    return groups


def describe(rows: list[dict[str, str]], correlations: list[float]) -> str:
    """How many are positive; mean and interval over the means of the seeds."""
    seeds = defaultdict(list)
    for row, correlation in zip(rows, correlations, strict=True):
        seeds[row["seed"]].append(correlation)
    positive = sum(correlation > 0 for correlation in correlations)
    means = np.array([np.mean(found) for found in seeds.values()])
    return f"positive in {positive} of {len(rows)} runs, mean {interval(means)}"
