"""Is it the data or the steps? The fit ln T = a + b ln N + c ln S, seed by seed.

N: training images, S: optimiser steps. At equal epochs S is proportional to N, so the slope of ln T
on ln N over data sets of different size (published: -0.52, 95 % -0.66 ... -0.38) estimates b + c.
Seeds are independent repetitions: mean and 95 % t interval are over them, not over rows. All seeds
of a fit have the same pairs (N, S), or a curve that is no line would pass for noise of the seeds.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from findings.regression import import_statsmodels
from findings.table import Table

PUBLISHED_SLOPE = (-0.52, -0.66, -0.38)
# What the runs of one fit have in common.
SETTINGS = ("dataset", "classes", "batch_size", "lr", "weight_decay")

Cells = dict[str, str]


def summary(table: Table) -> Iterable[str]:
    """Lines that give b, c and b + c for every group of runs from theta_A that can be fitted."""
    rows = [row.cells for row in table.rows]
    groups = defaultdict(list)
    for row in rows:
        if row["start"] == "theta_A":
            groups[tuple(row[key] for key in SETTINGS)].append(row)
    fitted = 0
    for key, found in groups.items():
        for seeds in balanced(found):
            if can_fit(next(iter(seeds.values())), 3):
                fitted += 1
                yield f"{', '.join(f'{k} {v}' for k, v in zip(SETTINGS, key, strict=True))}:"
                yield from fit_lines(seeds)
    if fitted:
        mean, low, high = PUBLISHED_SLOPE
        yield f"published slope of ln T on ln N, over data sets: {mean} (95 % {low} ... {high})"


def balanced(rows: list[Cells]) -> list[dict[str, list[Cells]]]:
    """Seed -> its runs, twice: the pairs (N, S) that all seeds have, and the seeds that have all.

    Once only where these are the same.
    """
    seeds = defaultdict(dict)
    for row in rows:
        seeds[row["seed"]][row["samples"], row["steps"]] = row
    every = set().union(*seeds.values())
    shared = every.intersection(*seeds.values())
    complete = {seed: list(runs.values()) for seed, runs in seeds.items() if set(runs) == every}
    common = {seed: [runs[pair] for pair in runs if pair in shared] for seed, runs in seeds.items()}
    return [common] if shared == every or not complete else [common, complete]


def fit_lines(seeds: dict[str, list[Cells]]) -> Iterable[str]:
    """The slopes over these seeds, without and with the loss of the probe as a predictor."""
    rows = next(iter(seeds.values()))
    images = sorted({int(row["samples"]) for row in rows})
    steps = sorted({int(row["steps"]) for row in rows})
    yield f" {len(seeds)} seeds; N {', '.join(map(str, images))}; S {', '.join(map(str, steps))}"
    for title, further, coefficients in (
        ("ln T = a + b ln N + c ln S", (), 3),
        ("the same with the training loss of the probe as a further predictor", ("probe_loss",), 4),
    ):
        if can_fit(rows, coefficients):
            slopes = np.array([fit(found, further) for found in seeds.values()])
            yield f"  {title}"
            yield f"    b      {interval(slopes[:, 0])}"
            yield f"    c      {interval(slopes[:, 1])}"
            yield f"    b + c  {interval(slopes[:, 0] + slopes[:, 1])}"


def can_fit(rows: list[Cells], coefficients: int) -> bool:
    """Whether N and S vary, and not only together, and there are more rows than coefficients."""
    return len(rows) > coefficients and np.linalg.matrix_rank(design(rows, ())) == 3


def design(rows: list[Cells], further: tuple[str, ...]) -> np.ndarray:
    """Columns 1, ln N, ln S, and `further` as they are."""
    return np.array(
        [
            [
                *(1.0, math.log(float(row["samples"])), math.log(float(row["steps"]))),
                *(float(row[key]) for key in further),
            ]
            for row in rows
        ]
    )


def fit(rows: list[Cells], further: tuple[str, ...]) -> tuple[float, float]:
    """(b, c) by least squares; further: columns that are predictors, too."""
    y = [math.log(float(row["transferability"])) for row in rows]
    coefficients, *_ = np.linalg.lstsq(design(rows, further), np.array(y), rcond=None)
    return float(coefficients[1]), float(coefficients[2])


def interval(values: np.ndarray) -> str:
    """Mean over seeds, and the 95 % t interval where there are several."""
    mean = f"{values.mean():+.3f}"
    if len(values) == 1:
        return f"{mean} (one seed, no interval)"
    import_statsmodels()
    from statsmodels.stats.weightstats import DescrStatsW

    low, high = DescrStatsW(values).tconfint_mean(alpha=0.05)
    return f"{mean} (95 % {low:+.3f} ... {high:+.3f}, {len(values)} seeds)"
