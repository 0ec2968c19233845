"""What the table of a study says about data, steps and depth.

    python -m findings summary findings/results.csv

Prints b and c of ln T = a + b ln N + c ln S over seeds (findings.slopes), and how T, T0 and T / T0
are correlated with depth (findings.depth).
"""

from collections.abc import Iterable
from pathlib import Path

from findings import depth, slopes
from findings.table import Table, read_table
from safe_io import ArgumentParser, InputError, say

# What `study` writes, and is read here.
NEEDED = ("start", "samples", "steps", "seed", "probe_loss", "transferability", *slopes.SETTINGS)


def lines(table: Table) -> Iterable[str]:
    """The lines of both summaries."""
    yield from slopes.summary(table)
    yield "rank correlation of depth with"
    yield from depth.summary(table)


def main(argv: list[str]) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings summary")
    parser.add_argument("results", type=Path, help="results.csv of a study")
    table = read_table(parser.parse_args(argv).results)
    missing = [column for column in NEEDED if column not in table.columns]
    if missing:
        raise InputError(f"{table.path} is not the table of a study: it has no column {missing[0]}")
    for line in lines(table):
        say(line)
