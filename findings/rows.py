"""The table of results: a CSV file with one row per data set and checkpoint, written by `factors`.

Columns that the user adds (a transferability, say) stay, with their values.
"""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safe_io import InputError, atomic_write

COLUMNS = (
    "dataset",
    "checkpoint",
    "sha256",
    "arch",
    "source",
    "image_size",
    "samples",
    "classes",
    "seed",
    "G",
    "G_error",
    "G_blocks",
    "G_block_size",
    "bandwidth2",
    "frechet",
    "frechet_n",
    "D",
    "D_error",
    "D_share",
    "D_share_error",
    "seconds",
)
# What a row is of: the images of the data set and the parameters.
KEY = ("dataset", "samples", "classes", "seed", "sha256")
# What the ruler of G is of.
RULER = ("sha256", "source", "image_size")
# Other hardware and TF32 change a median by far less, other source images by more.
SAME = 0.01


class Table(NamedTuple):
    """Column names in the order of the file, and the rows, all values as text."""

    columns: list[str]
    rows: list[dict[str, str]]


def read(path: Path) -> Table:
    """The table in a file; an empty one where there is no file or nothing in it.

    Raises InputError for a file that is no table of this kind.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise InputError(
                        f"{path}, line {reader.line_num}: another number of values than columns"
                    )
                rows.append(row)
            columns = list(reader.fieldnames or COLUMNS)
    except FileNotFoundError:
        return Table(list(COLUMNS), [])
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no CSV file ({error}); give another file") from error
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise InputError(
            f"{path} is no table of factors: it lacks the column {missing[0]} ({len(missing)} of "
            f"{len(COLUMNS)} in all); give another file"
        )
    if len(set(columns)) < len(columns):
        raise InputError(f"{path} has two columns of one name")
    return Table(columns, rows)


def matches(row: Mapping[str, str], other: Mapping[str, object], columns: tuple[str, ...]) -> bool:
    """Whether two rows agree in the columns."""
    return all(row[name] == text(other[name]) for name in columns)


def text(value: object) -> str:
    """A value as it is written: floats with nine digits."""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def check_ruler(path: Path, table: Table, row: Mapping[str, object]) -> None:
    """Raise InputError where another row has G by another ruler for the same network and source.

    row: the columns of KEY and RULER, and bandwidth2. With other source images under the same name,
    its G would not be comparable with those in the table.
    """
    for other in table.rows:
        if matches(other, row, KEY) or not matches(other, row, RULER):
            continue
        try:
            stored = float(other["bandwidth2"])
        except ValueError as error:
            raise InputError(
                f"{path} has the bandwidth2 '{other['bandwidth2']}', which is no number"
            ) from error
        if not math.isclose(stored, row["bandwidth2"], rel_tol=SAME):
            raise InputError(
                f"{path} has the bandwidth2 {stored:.6g} for this checkpoint and {row['source']}, "
                f"but these source images give {row['bandwidth2']:.6g}: they are others, and G "
                "would not be comparable; give another file"
            )


def put(path: Path, row: Mapping[str, object]) -> bool:
    """Write `row`, which has COLUMNS, into the file, whole or not at all; the other rows stay.

    It takes the place of the row with the same KEY, whose added columns it keeps; else it is the
    last. Returns whether there was one.
    """
    table = read(path)
    new = {name: text(row[name]) for name in COLUMNS}
    old = next((other for other in table.rows if matches(other, row, KEY)), None)
    if old is None:
        table.rows.append(new)
    else:
        old.update(new)
    file = io.StringIO()
    writer = csv.DictWriter(file, table.columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.rows)
    atomic_write(path, file.getvalue())
    return old is not None
