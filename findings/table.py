"""Tables of results: a CSV file with a row per data set, its columns found by name.

Lines that begin with # are comments; those above the header are notes that travel with the table.
A column may have other names (ALIASES), and `log_X` means the natural logarithm of column X.
"""

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from console import InputError

from .least_squares import LOG

# Our name of a column -> names it may have in a table instead. T: overall transferability, G:
# domain gap, D: intraclass variance, N: training images, K: classes.
ALIASES = {
    "T": ("transferability",),
    "G": ("domain_gap",),
    "D": ("intraclass_variance",),
    "N": ("data_amount", "samples", "train_images"),
    "K": ("classes",),
}
# What a row of a study is fine-tuned on.
TASK = ("dataset", "classes")
# Rows of a study compare where these agree: what T depends on, beside task, images and steps.
SETTINGS = ("batch_size", "lr", "weight_decay", "a_sha256")
# So much of a SHA-256 tells two files apart.
SHA256_SHOWN = 8
# So many columns are shown where one is missing.
SHOWN = 8


class Row(NamedTuple):
    """One row: its line in the file (from 1), and column -> text without blanks around it."""

    line: int
    cells: dict[str, str]

    @property
    def name(self) -> str:
        """What the row is called: its data set, or else its first cell."""
        return self.cells.get("dataset") or next(iter(self.cells.values()))


class Table(NamedTuple):
    """A table as it stands in the file, and the comments above its header."""

    path: Path
    columns: list[str]
    rows: list[Row]
    notes: list[str]


def read_table(path: Path) -> Table:
    """Read a CSV file, leaving out blank rows.

    Raises InputError for a file that cannot be read or is empty, a header without names, a row with
    more or fewer cells than it, and a row that is there twice.
    """
    try:
        # Spreadsheets write a byte-order mark.
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a CSV file") from error
    except ValueError as error:
        raise InputError(f"cannot read {path}: it is not UTF-8 text; give a CSV file") from error
    lines = text.split("\n")
    found = read_cells(path, lines)
    if not found:
        raise InputError(f"{path} is empty; its first line must name the columns")

    (top, columns), *rows = found
    check_header(path, top, columns)
    seen: dict[tuple[str, ...], int] = {}
    for line, cells in rows:
        place = f"{path} line {line} ({cells[0]})"
        if len(cells) != len(columns):
            raise InputError(f"{place} has {len(cells)} cells; the header has {len(columns)}")
        first = seen.setdefault(tuple(cells), line)
        if first != line:
            raise InputError(f"{place} repeats line {first}; remove one of them")
    notes = [line.lstrip("# ").rstrip() for line in lines[: top - 1]]
    return Table(
        path,
        columns,
        [Row(line, dict(zip(columns, cells, strict=True))) for line, cells in rows],
        [note for note in notes if note],
    )


def read_cells(path: Path, lines: list[str]) -> list[tuple[int, list[str]]]:
    """Line number (from 1) and cells of every row that is neither blank nor a comment."""
    # A comment becomes a blank line, so that the line numbers stay those of the file.
    reader = csv.reader(["" if line.startswith("#") else line for line in lines], strict=True)
    try:
        found = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num}: {error}; give a CSV file") from error
    # Spreadsheets end a file with rows of commas.
    return [(line, cells) for line, cells in found if any(cells)]


def check_header(path: Path, line: int, columns: list[str]) -> None:
    """Raise InputError for a header with a number for a name, without a name, or with one twice."""
    for i, column in enumerate(columns):
        if not column:
            raise InputError(f"{path} line {line}: column {i + 1} has no name")
        if is_number(column):
            raise InputError(
                f"{path} line {line}: {column} names no column; a header must come first"
            )
        if column in columns[:i]:
            raise InputError(f"{path} line {line}: two columns are named {column}")


def is_number(text: str) -> bool:
    """Whether float() takes the text."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def comparable_rows(table: Table) -> tuple[Table, list[str]]:
    """The table with the rows that compare, and which are left out, and why.

    Only a table of a study, with the column `start`, is changed. Of the rows from theta_A the
    largest group (of several, the first) stays that has all of SETTINGS in common, and of each data
    set in it the rows with its most frequent number of classes: data sets differ in theirs, but T
    of one data set with other numbers of classes is another experiment. Raises InputError where a
    run is there twice.
    """
    if "start" not in table.columns:
        return table, []
    check_runs(table)
    real = [row for row in table.rows if row.cells["start"] == "theta_A"]
    notes = []
    total = f"of {len(table.rows)} rows left out"
    if len(real) < len(table.rows):
        notes.append(f"{len(table.rows) - len(real)} {total}, whose start is not theta_A")
    groups = group_rows(real, SETTINGS)
    same = max(groups.values(), key=len, default=[])
    if len(same) < len(real):
        differ = [
            column
            for column, *values in zip(SETTINGS, *groups, strict=True)
            if len(set(values)) > 1
        ]
        notes.append(
            f"{len(real) - len(same)} {total}, which differ from the rest in {', '.join(differ)}; "
            f"kept: {describe(same[0], differ)}"
        )
    kept = most_frequent_classes(same)
    if len(kept) < len(same):
        tasks = [describe(rows[0], TASK) for rows in group_rows(kept, TASK).values()]
        notes.append(
            f"{len(same) - len(kept)} {total}, with other classes than most of their data set; "
            f"kept: {'; '.join(tasks)}"
        )
    return table._replace(rows=kept), notes


def most_frequent_classes(rows: list[Row]) -> list[Row]:
    """Of every data set the rows with its most frequent number of classes; of several the first."""
    frequent = [
        max(group_rows(found, ("classes",)).values(), key=len)
        for found in group_rows(rows, ("dataset",)).values()
    ]
    chosen = {row.line for found in frequent for row in found}
    return [row for row in rows if row.line in chosen]


def check_runs(table: Table) -> None:
    """Raise InputError naming both lines where a study has a run twice.

    A run: one start, task, seed, number of images and of steps, at the same settings. A table
    without such columns has none.
    """
    images = find_column(table, "N")
    if not {"seed", "steps"} <= set(table.columns) or images is None:
        return
    for rows in group_rows(
        table.rows, ("start", *TASK, *SETTINGS, "seed", images, "steps")
    ).values():
        if len(rows) > 1:
            first, second = rows[:2]
            raise InputError(
                f"{table.path} line {second.line} ({second.name}) is of the same run as line "
                f"{first.line}: {describe(second, ('seed', images, 'steps'))}; remove one of them"
            )


def group_rows(
    rows: list[Row], columns: tuple[str, ...]
) -> dict[tuple[str | float, ...], list[Row]]:
    """Settings in these columns -> the rows that have them, in the order of the table."""
    groups = defaultdict(list)
    for row in rows:
        groups[settings(row, columns)].append(row)
    return dict(groups)


def settings(row: Row, columns: tuple[str, ...] = SETTINGS) -> tuple[str | float, ...]:
    """The cells of these columns, as numbers where they are: 1e-4 is 0.0001. No column: ""."""
    # A SHA-256 may look like a number.
    return tuple(
        float(cell) if column != "a_sha256" and is_number(cell) else cell
        for column, cell in ((column, row.cells.get(column, "")) for column in columns)
    )


def describe(row: Row, columns: Sequence[str]) -> str:
    """Columns and their cells as they stand: batch_size 128, lr 0.01."""
    cells = {column: row.cells.get(column, "") for column in columns}
    if "a_sha256" in cells:
        cells["a_sha256"] = cells["a_sha256"][:SHA256_SHOWN]
    return ", ".join(f"{column} {cell}" for column, cell in cells.items())


def find_column(table: Table, name: str) -> str | None:
    """The column of that name or of another name for the same; None where there is none.

    Raises InputError where several could be meant.
    """
    if name in table.columns:
        return name
    found = [alias for alias in ALIASES.get(name, ()) if alias in table.columns]
    if len(found) > 1:
        raise InputError(f"{table.path}: {name} could be {' or '.join(found)}; rename one of them")
    return found[0] if found else None


def has_column(table: Table, name: str) -> bool:
    """Whether a column of that name is there, or one for `log_NAME`."""
    return bool(find_column(table, name) or find_column(table, name.removeprefix(LOG)))


def resolve(table: Table, name: str) -> tuple[str, bool]:
    """The column that a name or `log_NAME` means, and whether its logarithm is wanted.

    Raises InputError for an unknown column.
    """
    column = find_column(table, name)
    if column is not None:
        return column, False
    plain = name.removeprefix(LOG)
    column = find_column(table, plain)
    if column is None:
        others = f" (or {', '.join(ALIASES[plain])})" if plain in ALIASES else ""
        shown = ", ".join(table.columns[:SHOWN])
        if len(table.columns) > SHOWN:
            shown = f"{len(table.columns)}: {shown}, ..."
        raise InputError(f"{table.path} has no column {plain or name}{others}; it has {shown}")
    return column, True


def read_column(table: Table, name: str, *, finite: bool = True) -> np.ndarray:
    """Finite numbers of a column, or their natural logarithms for `log_NAME`: float64, a row each.

    finite: refuse infinity, too, which T of a layer that did not move is. Raises InputError naming
    row and column for a cell that is missing, is no such number, or is not positive where a
    logarithm is taken, and for an unknown column.
    """
    column, logged = resolve(table, name)
    values = np.array(
        [read_cell(table, row, column, positive=logged, finite=finite) for row in table.rows]
    )
    return np.log(values) if logged else values


def read_cell(table: Table, row: Row, column: str, *, positive: bool, finite: bool) -> float:
    """The number in a cell; raises InputError as above."""
    text = row.cells[column]
    place = f"{table.path} line {row.line} ({row.name}), column {column}"
    if not text:
        raise InputError(f"{place}: the value is missing; fill it in or leave the row out")
    if not is_number(text):
        raise InputError(f"{place}: '{text}' is not a number")
    value = float(text)
    if math.isnan(value) or (finite and math.isinf(value)):
        raise InputError(f"{place}: {text} is not finite; leave the row out")
    if positive and value <= 0:
        raise InputError(f"{place}: {text} has no logarithm; it must be above 0")
    return value
