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

from .intervals import mean_interval
from .least_squares import fit
from .table import SETTINGS, TASK, Row, Table, describe, group_rows

PUBLISHED_SLOPE = (-0.52, -0.66, -0.38)


def summary(table: Table) -> Iterable[str]:
    """Lines that give b, c and b + c for every group of runs from theta_A that can be fitted."""
    rows = [row for row in table.rows if row.cells["start"] == "theta_A"]
    several = len({row.cells.get("a_sha256") for row in rows}) > 1
    shown = [*TASK, *(column for column in SETTINGS if several or column != "a_sha256")]
    fitted = 0
    for found in group_rows(rows, (*TASK, *SETTINGS)).values():
        for seeds in balanced(found):
            if can_fit(seeds, 3):
                fitted += 1
                yield f"{describe(found[0], shown)}:"
                yield from fit_lines(seeds)
    if fitted:
        mean, low, high = PUBLISHED_SLOPE
        yield f"published slope of ln T on ln N, over data sets: {mean} (95 % {low} ... {high})"
    else:
        yield (
            "ln T = a + b ln N + c ln S is not fitted: that takes four runs a seed, of the same "
            "settings, in which N and S vary, and not only together"
        )


def balanced(rows: list[Row]) -> list[dict[str, list[Row]]]:
    """Seed -> its runs, twice: the pairs (N, S) that all seeds have, and the seeds that have all.

    Once only where these are the same.
    """
    seeds = defaultdict(dict)
    for row in rows:
        seeds[row.cells["seed"]][images(row), steps(row)] = row
    every = set().union(*seeds.values())
    shared = every.intersection(*seeds.values())
    complete = {seed: list(runs.values()) for seed, runs in seeds.items() if set(runs) == every}
    common = {seed: [runs[pair] for pair in runs if pair in shared] for seed, runs in seeds.items()}
    return [common] if shared == every or not complete else [common, complete]


def images(row: Row) -> float:
    """N of a run."""
    return float(row.cells["samples"])


def steps(row: Row) -> float:
    """S of a run."""
    return float(row.cells["steps"])


def fit_lines(seeds: dict[str, list[Row]]) -> Iterable[str]:
    """The slopes over these seeds, without and with the loss of the probe as a predictor."""
    rows = next(iter(seeds.values()))
    sizes = [sorted({size(row) for row in rows}) for size in (images, steps)]
    n, s = (", ".join(f"{size:.10g}" for size in found) for found in sizes)
    yield f" {len(seeds)} seeds; N {n}; S {s}"
    for title, further, coefficients in (
        ("ln T = a + b ln N + c ln S", (), 3),
        ("the same with the training loss of the probe as a further predictor", ("probe_loss",), 4),
    ):
        if can_fit(seeds, coefficients, further):
            fits = [fit(log_t(found), log_design(found, further)) for found in seeds.values()]
            b, c = np.array([found.coefficients[:2] for found in fits]).T
            yield f"  {title}"
            yield f"    b      {interval(b)}"
            yield f"    c      {interval(c)}"
            yield f"    b + c  {interval(b + c)}"


def can_fit(seeds: dict[str, list[Row]], coefficients: int, further: tuple[str, ...] = ()) -> bool:
    """Whether every seed has more runs than coefficients, and its predictors can be told apart."""
    return all(
        len(rows) > coefficients
        and np.linalg.matrix_rank(log_design(rows, further)) == coefficients
        for rows in seeds.values()
    )


def log_t(rows: list[Row]) -> np.ndarray:
    """ln T of the runs."""
    return np.array([math.log(float(row.cells["transferability"])) for row in rows])


def log_design(rows: list[Row], further: tuple[str, ...]) -> np.ndarray:
    """Columns 1, ln N, ln S, and `further` as they are."""
    return np.array(
        [
            [
                *(1.0, math.log(images(row)), math.log(steps(row))),
                *(float(row.cells[column]) for column in further),
            ]
            for row in rows
        ]
    )


def interval(values: np.ndarray) -> str:
    """Mean over seeds, and the 95 % t interval where there are several."""
    mean, low, high = mean_interval(values)
    if len(values) == 1:
        return f"{mean:+.3f} (one seed, no interval)"
    return f"{mean:+.3f} (95 % {low:+.3f} ... {high:+.3f}, {len(values)} seeds)"
