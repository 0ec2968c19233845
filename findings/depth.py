"""Does T rise with depth? Spearman's correlation of depth with T, T0 and T / T0, run by run.

The layers of a network are not exchangeable, so no p-value comes from them: what is repeated are
seeds. The classifier is left out. T / T0 is taken where there are null runs at the very same budget
(T0 is their mean); a correlation of T that its T0 has, too, says nothing about transfer.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from findings.published import PUBLISHED, depth_correlation
from findings.slopes import interval
from findings.table import Table

PREFIX = "T "
BUDGET = ("dataset", "classes", "samples", "steps", "batch_size", "lr", "weight_decay")


def summary(table: Table) -> Iterable[str]:
    """A line per quantity: number of positive runs, and mean and t interval over seeds."""
    rows = [row.cells for row in table.rows]
    started = [row for row in rows if row["start"] == "theta_A"]
    nulls = [row for row in rows if row["start"] == "null"]
    groups = defaultdict(list)
    for row in nulls:
        groups[budget(row)].append(profile(row))
    null = {key: np.mean(profiles, axis=0) for key, profiles in groups.items()}
    for name, chosen, values in (
        ("T", started, profile),
        ("T0", nulls, profile),
        (
            "T / T0",
            [row for row in started if budget(row) in null],
            lambda row: profile(row) / null[budget(row)],
        ),
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


def budget(row: dict[str, str]) -> tuple[str, ...]:
    """What runs must have in common for T / T0."""
    return tuple(row[key] for key in BUDGET)


def describe(rows: list[dict[str, str]], correlations: list[float]) -> str:
    """How many are positive; mean and interval over the means of the seeds."""
    seeds = defaultdict(list)
    for row, correlation in zip(rows, correlations, strict=True):
        seeds[row["seed"]].append(correlation)
    positive = sum(correlation > 0 for correlation in correlations)
    means = np.array([np.mean(found) for found in seeds.values()])
    return f"positive in {positive} of {len(rows)} runs, mean {interval(means)}"
