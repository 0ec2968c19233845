"""Tables of results: CSV files with a row per data set or run, whose columns are found by name.

Cells stay text: pandas' own reader would take `null` for a missing value, and 1e-4 would no longer
be printed as it was written. Lines that begin with # are comments and travel with the table. A
column may have other names (ALIASES), and `log_X` means the natural logarithm of column X.
"""

import contextlib
import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from console import InputError
from safe_io import atomic_write, locked

from .published import COLUMNS, LOG

# Our name of a column -> names it may have in a table instead. T: overall transferability, G:
# domain gap, D: intraclass variance, N: training images, K: classes.
ALIASES = {symbol: (name,) for symbol, name in COLUMNS.items()}
ALIASES["N"] += ("samples", "train_images")
# Column `start` of a study's run from an independent random start; the second word is that of older
# tables.
RANDOM = ("random", "null")
# What a run of a study is fine-tuned on; older tables have neither folder nor labels.
TASK = ("dataset", "folder", "labels", "classes")
# Runs of a study compare where these agree: what T depends on besides task, images and steps.
SETTINGS = ("batch_size", "lr", "weight_decay", "a_sha256")
# Digits of a SHA-256 that tell two files apart, and columns that are shown where one is missing.
SHA256_SHOWN = 8
SHOWN = 8
# First bytes of what spreadsheets write instead of UTF-8 text, what that is, and what to do.
OTHER_FILES = {
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
    b"PK\x03\x04": "a spreadsheet (or another archive)",
    b"\xd0\xcf\x11\xe0": "a spreadsheet",
}
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
EXPORT = "save it as CSV in UTF-8 with commas between the cells and a point in decimals"


class Table(NamedTuple):
    """A table: its cells as text, by line of the file (from 1) and column; and its comments."""

    path: Path
    rows: pd.DataFrame
    comments: list[str]

    @property
    def columns(self) -> list[str]:
        return list(self.rows.columns)

    @property
    def notes(self) -> list[str]:
        """The text of the comments."""
        return [text for line in self.comments if (text := line.lstrip("# ").rstrip())]

    def name(self, line: int) -> str:
        """Name of a row: its folder or data set, or else its first cell."""
        row = self.rows.loc[line]
        return row.get("folder") or row.get("dataset") or row.iloc[0]

    def where(self, line: int) -> str:
        """The beginning of a message about a row."""
        return f"{self.path} line {line} ({self.name(line)})"


def read_table(path: Path, *, new: Sequence[str] = ()) -> Table:
    """Read a CSV file, leaving out blank rows.

    new: columns of the table, without rows, that is returned where the file is missing or empty.
    Raises InputError for a file that cannot be read or is empty, a header without names, a row with
    more or fewer cells than it, and a row that is there twice.
    """
    if new and not (path.exists() and path.stat().st_size):
        return Table(path, pd.DataFrame(columns=list(new), dtype=object), [])
    text = read_text(path)
    check_separator(path, text)
    comments, records = read_records(path, text)
    if not records:
        raise InputError(f"{path} is empty; its first line must name the columns")

    (top, columns), *rows = records
    for column in columns:
        if not column or is_number(column) or columns.count(column) > 1:
            raise InputError(
                f"{path} line {top}: the header must give each column its own name, not '{column}'"
            )
    lines: dict[tuple[str, ...], int] = {}
    for line, cells in rows:
        where = f"{path} line {line} ({cells[0]})"
        if len(cells) != len(columns):
            more = "; decimals need a point, not a comma" * (len(cells) > len(columns))
            raise InputError(f"{where} has {len(cells)} cells; the header has {len(columns)}{more}")
        first = lines.setdefault(tuple(cells), line)
        if first != line:
            raise InputError(f"{where} repeats line {first}; remove one of them")
    return Table(path, pd.DataFrame(list(lines), list(lines.values()), columns, object), comments)


def read_text(path: Path) -> str:
    """The text of a CSV file in UTF-8. InputError says what else it is."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a CSV file") from error
    with contextlib.suppress(ValueError):
        # Spreadsheets write a byte-order mark.
        text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig").read()
        # A text in UTF-16 without such a mark is one in UTF-8, half of it zeros.
        if "\0" not in text:
            return text
    kind = next((kind for start, kind in OTHER_FILES.items() if data.startswith(start)), None)
    if kind is None:
        kind = "UTF-16 text, or none" if b"\0" in data else "not UTF-8 text"
    raise InputError(f"cannot read {path}: it is {kind}; {EXPORT}")


def check_separator(path: Path, text: str) -> None:
    """Raise InputError where the header has other separators than commas."""
    lines = enumerate(text.split("\n"), start=1)
    number, header = next((x for x in lines if x[1].strip() and x[1][0] != "#"), (0, ""))
    if header.lower().startswith("sep="):
        raise InputError(f"{path} line {number} is {header}, which is no header; {EXPORT}")
    for mark, name in SEPARATORS.items():
        if header.count(mark) > header.count(","):
            raise InputError(f"{path} line {number} has {name} between its cells; {EXPORT}")


def read_records(path: Path, text: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The comments, and line number (from 1) and cells of every row that is not blank."""
    comments, records = [], []
    numbered = enumerate(io.StringIO(text), start=1)
    for number, line in numbered:
        if line.startswith("#"):
            comments.append(line.rstrip())
            continue
        # A cell in quotes may go on in the next lines, even where these begin with #.
        reader = csv.reader(chain([line], (further for _, further in numbered)), strict=True)
        try:
            cells = [cell.strip() for cell in next(reader)]
        except csv.Error as error:
            raise InputError(f"{path} line {number}: {error}; give a CSV file") from error
        # Spreadsheets end a file with rows of commas.
        if any(cells):
            records.append((number, cells))
    return comments, records


def check_columns(table: Table, needed: Iterable[str], kind: str) -> None:
    """Raise InputError where a table of some kind lacks a column."""
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise InputError(f"{table.path} is not {kind}: it has no column {missing[0]}")


def upsert(path: Path, row: Mapping[str, object], *, key: Sequence[str]) -> bool:
    """Write a row into the table in a file, whole or not at all; the other rows stay.

    It replaces the row that has the same cells in the columns `key`, whose further columns stay;
    else it is added as the last. Returns whether it replaced one. Several processes may write into
    one file. Comments move to the top.
    """
    new = {name: f"{x:.9g}" if isinstance(x, float) else str(x) for name, x in row.items()}
    with locked(path, wait=True):
        table = read_table(path, new=list(new))
        rows = table.rows
        same = rows.index[(rows[list(key)] == [new[name] for name in key]).all(axis=1)]
        if len(same):
            rows.loc[same[0], list(new)] = list(new.values())
        else:
            rows.loc[rows.index.max() + 1 if len(rows) else 0] = [
                new.get(column, "") for column in table.columns
            ]
        comments = "".join(f"{comment}\n" for comment in table.comments)
        atomic_write(path, comments + rows.to_csv(index=False, lineterminator="\n"))
    return bool(len(same))


def is_number(text: str) -> bool:
    """Whether float() takes the text."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def compared(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The cells of these columns as they compare: 1e-4 is 0.0001, a missing column is empty."""

    def value(column: str, cell: str) -> str | float:
        # A SHA-256 may look like a number.
        return float(cell) if column != "a_sha256" and is_number(cell) else cell

    cells = {
        column: [value(column, cell) for cell in rows.get(column, [""] * len(rows))]
        for column in columns
    }
    return pd.DataFrame(cells, rows.index, dtype=object)


def group_rows(rows: pd.DataFrame, columns: Sequence[str]) -> list[pd.DataFrame]:
    """The rows that agree in these columns, group by group, in the order of the table."""
    keys = compared(rows, columns)
    groups = rows.groupby([keys[column] for column in columns], sort=False, dropna=False)
    return [group for _, group in groups]


def describe(row: pd.Series, columns: Sequence[str]) -> str:
    """Columns and their cells as they stand, without empty ones: batch_size 128, lr 0.01."""
    cells = {column: row[column] for column in columns if row.get(column)}
    if "a_sha256" in cells:
        cells["a_sha256"] = cells["a_sha256"][:SHA256_SHOWN]
    return ", ".join(f"{column} {cell}" for column, cell in cells.items())


def of_block(table: Table, block: str | None) -> Table:
    """The rows of one block of a study; all where it has no blocks, or one.

    Raises InputError where there are several and none of them is named, or another.
    """
    blocks = list(table.rows["block"].unique()) if "block" in table.columns else []
    if block is None and len(blocks) < 2:
        return table
    if block not in blocks:
        shown = ", ".join(blocks) or "none"
        raise InputError(f"{table.path} has the blocks {shown}; give one of them as --block")
    return table._replace(rows=table.rows[table.rows["block"] == block])


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
    notes = []
    total = f"of {len(table.rows)} rows left out"
    real = table.rows[table.rows["start"] == "theta_A"]
    if len(real) < len(table.rows):
        notes.append(f"{len(table.rows) - len(real)} {total}, whose start is not theta_A")
    random = real.get("labels", pd.Series("", real.index)) == "random"
    if random.any():
        notes.append(f"{random.sum()} {total}, whose labels are random")
    real = real[~random]
    same = max(group_rows(real, SETTINGS), key=len, default=real)
    if len(same) < len(real):
        differ = [column for column, n in compared(real, SETTINGS).nunique().items() if n > 1]
        notes.append(
            f"{len(real) - len(same)} {total}, which differ from the rest in {', '.join(differ)}; "
            f"kept: {describe(same.iloc[0], differ)}"
        )
    frequent = [
        max(group_rows(rows, ("classes",)), key=len)
        for rows in group_rows(same, ("dataset", "folder"))
    ]
    kept = pd.concat(frequent).sort_index() if frequent else same
    if len(kept) < len(same):
        tasks = "; ".join(describe(rows.iloc[0], TASK) for rows in group_rows(kept, TASK))
        notes.append(
            f"{len(same) - len(kept)} {total}, with other classes than most of their data set; "
            f"kept: {tasks}"
        )
    return table._replace(rows=kept), notes


def check_runs(table: Table) -> None:
    """Raise InputError naming both lines where a study has a run twice.

    A run: one start, task, seed, number of images and of steps, at the same settings. It may be in
    several blocks. A table without such columns has none.
    """
    images = "samples" if "samples" in table.columns else find_column(table, "N")
    if not {"seed", "steps"} <= set(table.columns) or images is None:
        return
    for rows in group_rows(
        table.rows, ("block", "start", *TASK, *SETTINGS, "seed", images, "steps")
    ):
        if len(rows) > 1:
            first, second = rows.index[:2]
            raise InputError(
                f"{table.where(second)} is of the same run as line {first}: "
                f"{describe(rows.loc[second], ('seed', images, 'steps'))}; remove one of them"
            )


def find_column(table: Table, name: str) -> str | None:
    """The column of that name or of another name for the same; None where there is none.

    Raises InputError where several could be meant.
    """
    if name in table.columns:
        return name
    matches = [alias for alias in ALIASES.get(name, ()) if alias in table.columns]
    if len(matches) > 1:
        raise InputError(
            f"{table.path}: {name} could be {' or '.join(matches)}; rename one of them"
        )
    return matches[0] if matches else None


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


def read_column(
    table: Table, name: str, *, finite: bool = True, positive: bool = False
) -> np.ndarray:
    """Finite numbers of a column, or their natural logarithms for `log_NAME`: float64, a row each.

    finite: refuse infinity, too, which T of a layer that did not move is. positive: refuse what has
    no logarithm. Raises InputError naming row and column for a cell that is missing or no such
    number, and for an unknown column.
    """
    column, logged = resolve(table, name)
    for line, text in table.rows[column].items():
        fault = fault_of(text, finite=finite, positive=positive or logged)
        if fault:
            raise InputError(f"{table.where(line)}, column {column}: {fault}")
    values = table.rows[column].to_numpy(dtype=float)
    return np.log(values) if logged else values


def fault_of(text: str, *, finite: bool, positive: bool) -> str:
    """Why a cell is no number of that kind, and what to do; empty if it is one."""
    if not text:
        return "the value is missing; fill it in or leave the row out"
    if not is_number(text):
        point = "; write decimals with a point, and thousands without a mark" * ("," in text)
        return f"'{text}' is not a number{point}"
    value = float(text)
    if math.isnan(value) or (finite and math.isinf(value)):
        return f"{text} is not finite; leave the row out"
    if positive and value <= 0:
        return f"{text} has no logarithm; it must be above 0"
    return ""


def read_json(path: Path, *, advice: str) -> dict[str, Any]:
    """The object in a JSON file of a script; InputError, with advice, where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}; {advice}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no JSON object; {advice}")
    return content
