"""What the table of a study says about data, steps and depth.

    python -m findings summary findings/results.csv

Prints b and c of ln T = a + b ln N + c ln S over seeds (findings.slopes), T of the runs in which
one thing is changed beside the others (findings.arms), and how T, T0 and T / T0 are correlated with
depth (findings.depth).
"""

from collections.abc import Iterable
from pathlib import Path

from console import ArgumentParser, InputError, say

from . import arms, depth, slopes
from .published import PUBLISHED
from .table import SETTINGS, TASK, Table, check_runs, read_column, read_table

# Numbers that `study` writes, and that are read here.
NUMBERS = ("log_samples", "log_steps", "log_transferability", "probe_loss")
# Further columns. a_sha256 came later: one theta_A is meant where it is missing.
NEEDED = (
    "start",
    "samples",
    "steps",
    "seed",
    "probe_loss",
    "transferability",
    *TASK,
    *SETTINGS[:-1],
)


def lines(table: Table) -> Iterable[str]:
    """The lines of the three summaries.

    Raises InputError naming row and column of a cell that is no number as it must be, and for a
    run that is there twice.
    """
    check_runs(table)
    for column in NUMBERS:
        read_column(table, column)
    for column in depth.layer_columns(table):
        read_column(table, column, finite=False)
    yield from slopes.summary(table)
    changed = list(arms.summary(table))
    if changed:
        yield "one thing changed"
        yield from changed
    yield "rank correlation of depth with"
    yield from depth.summary(table)
    published = depth.depth_correlation(PUBLISHED[:-1])
    yield f"  published values of CIFAR-10: {published:+.2f} over {len(PUBLISHED) - 1} layers"


def main(argv: list[str]) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings summary")
    parser.add_argument("results", type=Path, help="results.csv of a study")
    table = read_table(parser.parse_args(argv).results)
    missing = [column for column in NEEDED if column not in table.columns]
    if missing:
        raise InputError(f"{table.path} is not the table of a study: it has no column {missing[0]}")
    for line in lines(table):
        say(line)
