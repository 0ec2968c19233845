"""One thing changed: T of a study's arms beside that of the runs in which all else is equal.

An arm is a group of runs from theta_A whose weight decay, batch size, learning rate or number of
classes is not that of most runs. Each is compared with the run of the same seed, images, steps and
theta_A, so that the interval of the ratio is over seeds.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from .intervals import mean_interval
from .table import SETTINGS, TASK, Row, Table, group_rows, settings

# What an arm may change; images, steps, seed and theta_A are those of the run it is compared with.
CHANGED = (*TASK[1:], *SETTINGS[:-1])
SAME = (TASK[0], SETTINGS[-1], "samples", "steps", "seed")


def summary(table: Table) -> Iterable[str]:
    """A line per arm: mean T of both over the seeds that both have, and their ratio."""
    rows = [row for row in table.rows if row.cells["start"] == "theta_A"]
    if not rows:
        return
    usual = Counter(settings(row, CHANGED) for row in rows).most_common(1)[0][0]
    reference = {settings(row, SAME): row for row in rows if settings(row, CHANGED) == usual}
    others = [row for row in rows if settings(row, CHANGED) != usual]
    for arm in group_rows(others, (*CHANGED, "samples", "steps")).values():
        pairs = [
            (row, reference[settings(row, SAME)]) for row in arm if settings(row, SAME) in reference
        ]
        if pairs:
            yield f"  {', '.join(differences(pairs[0][0], usual))}: {compare(pairs)}"


def differences(row: Row, usual: tuple) -> Iterator[str]:
    """What is changed in an arm, as words."""
    for column, value, other in zip(CHANGED, settings(row, CHANGED), usual, strict=True):
        if value != other:
            yield f"{column} {row.cells[column]}"


def compare(pairs: list[tuple[Row, Row]]) -> str:
    """Mean T of the arm and of the runs beside it, and the mean ratio with its interval."""
    arm, other = (
        np.array([float(row.cells["transferability"]) for row in rows])
        for rows in zip(*pairs, strict=True)
    )
    mean, low, high = mean_interval(arm / other)
    cells = pairs[0][0].cells
    spread = f"95 % {low:.3f} ... {high:.3f}, {len(pairs)} seeds" if len(pairs) > 1 else "one seed"
    return (
        f"T {arm.mean():.2f} beside {other.mean():.2f} (N {cells['samples']}, S {cells['steps']}), "
        f"ratio {mean:.3f} ({spread})"
    )
