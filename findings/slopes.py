"""Is it the data or the steps? The fit ln T = a + b ln N + c ln S, seed by seed.

N: training images, S: optimiser steps. At equal epochs S is proportional to N, so the slope of ln T
on ln N over data sets of different size (published: -0.52, 95 % -0.66 ... -0.38) estimates b + c.
Seeds are independent repetitions: mean and 95 % t interval are over them, not over rows.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from findings.table import Table

PUBLISHED_SLOPE = (-0.52, -0.66, -0.38)


def summary(table: Table) -> Iterable[str]:
    """Lines that say b, c and b + c over the seeds whose rows let them be fitted.

    Only rows from theta_A count that share batch size, rate, weight decay and classes with most.
    """
    rows = comparable([row.cells for row in table.rows])
    seeds = defaultdict(list)
    for row in rows:
        seeds[row["seed"]].append(row)
    plain = {seed: fit(found, ()) for seed, found in seeds.items() if can_fit(found, 3)}
    probed = {
        seed: fit(found, ("probe_loss",)) for seed, found in seeds.items() if can_fit(found, 4)
    }
    for title, fits in (
        ("ln T = a + b ln N + c ln S", plain),
        ("the same with the training loss of the probe as a further predictor", probed),
    ):
        if fits:
            yield f"{title} ({len(fits)} seeds, {len(rows)} runs from theta_A):"
            slopes = np.array(list(fits.values()))
            yield f"  b      {interval(slopes[:, 0])}"
            yield f"  c      {interval(slopes[:, 1])}"
            yield f"  b + c  {interval(slopes[:, 0] + slopes[:, 1])}"
    if plain:
        mean, low, high = PUBLISHED_SLOPE
        yield f"published slope of ln T on ln N, over data sets: {mean} (95 % {low} ... {high})"


def comparable(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows from theta_A of the largest group that differs in N, S and seed alone."""
    groups = defaultdict(list)
    for row in rows:
        if row["start"] == "theta_A":
            groups[
                tuple(row[k] for k in ("dataset", "classes", "batch_size", "lr", "weight_decay"))
            ].append(row)
    return max(groups.values(), key=len, default=[])


def can_fit(rows: list[dict[str, str]], coefficients: int) -> bool:
    """Whether N and S vary, not together alone, and there are more rows than coefficients."""
    logs = np.array(
        [[1.0, math.log(float(r["samples"])), math.log(float(r["steps"]))] for r in rows]
    )
    return len(rows) > coefficients and np.linalg.matrix_rank(logs) == 3


def fit(rows: list[dict[str, str]], further: tuple[str, ...]) -> tuple[float, float]:
    """(b, c) by least squares; further: columns that are predictors, too."""
    x = [
        [
            1.0,
            math.log(float(r["samples"])),
            math.log(float(r["steps"])),
            *(float(r[k]) for k in further),
        ]
        for r in rows
    ]
    y = [math.log(float(r["transferability"])) for r in rows]
    coefficients, *_ = np.linalg.lstsq(np.array(x), np.array(y), rcond=None)
    return float(coefficients[1]), float(coefficients[2])


def interval(values: np.ndarray) -> str:
    """Mean over seeds, and the 95 % t interval where there are several."""
    mean = f"{values.mean():+.3f}"
    if len(values) == 1:
        return f"{mean} (one seed, no interval)"
    from statsmodels.stats.weightstats import DescrStatsW

    low, high = DescrStatsW(values).tconfint_mean(alpha=0.05)
    return f"{mean} (95 % {low:+.3f} ... {high:+.3f}, {len(values)} seeds)"
