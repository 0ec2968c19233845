"""Tables of results: a CSV file with a row per data set, its columns found by name.

Lines that begin with # are comments; those above the header are notes that travel with the table.
A column may have other names (ALIASES), and `log_X` means the natural logarithm of column X.
"""

import csv
import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from findings.least_squares import LOG
from safe_io import InputError

# Our name of a column -> names it may have in a table instead. T: overall transferability, G:
# domain gap, D: intraclass variance, N: training images, K: classes.
ALIASES = {
    "T": ("transferability",),
    "G": ("domain_gap",),
    "D": ("intraclass_variance",),
    "N": ("data_amount", "samples", "train_images"),
    "K": ("classes",),
}
# In a study, rows compare that have these columns in common and start from theta_A.
SETTINGS = ("dataset", "classes", "batch_size", "lr", "weight_decay")
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

    Only a table of a study, with the column `start`, is changed: rows from theta_A stay, and of
    them the largest group (of several, the first) that has all of SETTINGS in common.
    """
    if "start" not in table.columns:
        return table, []
    total = f"of {len(table.rows)} rows left out"
    groups = defaultdict(list)
    for row in table.rows:
        if row.cells["start"] == "theta_A":
            groups[settings(row)].append(row)
    notes = []
    real = sum(map(len, groups.values()))
    if real < len(table.rows):
        notes.append(f"{len(table.rows) - real} {total}, whose start is not theta_A")
    most = max(groups, key=lambda group: len(groups[group]), default=())
    rows = groups.get(most, [])
    if len(rows) < real:
        differ = [
            column
            for column, *values in zip(SETTINGS, *groups, strict=True)
            if len(set(values)) > 1
        ]
        notes.append(
            f"{real - len(rows)} {total}, which differ from the rest in {', '.join(differ)}"
        )
    return table._replace(rows=rows), notes


def settings(row: Row) -> tuple[str | float, ...]:
    """The cells of SETTINGS, as numbers where they are: 1e-4 is 0.0001."""
    cells = [row.cells.get(column, "") for column in SETTINGS]
    return tuple(float(cell) if is_number(cell) else cell for cell in cells)


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


def read_column(table: Table, name: str) -> np.ndarray:
    """Finite numbers of a column, or their natural logarithms for `log_NAME`: float64, a row each.

    Raises InputError naming row and column for a cell that is missing, is no finite number, or is
    not positive where a logarithm is taken, and for an unknown column.
    """
    column, logged = resolve(table, name)
    values = np.array([read_cell(table, row, column, positive=logged) for row in table.rows])
    return np.log(values) if logged else values


def read_cell(table: Table, row: Row, column: str, *, positive: bool) -> float:
    """The number in a cell; raises InputError as above."""
    text = row.cells[column]
    place = f"{table.path} line {row.line} ({row.name}), column {column}"
    if not text:
        raise InputError(f"{place}: the value is missing; fill it in or leave the row out")
    if not is_number(text):
        raise InputError(f"{place}: '{text}' is not a number")
    value = float(text)
    if not math.isfinite(value):
        raise InputError(f"{place}: {text} is not finite; leave the row out")
    if positive and value <= 0:
        raise InputError(f"{place}: {text} has no logarithm; it must be above 0")
    return value
