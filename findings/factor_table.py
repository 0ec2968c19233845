"""The table of results: a CSV file with one row per data set and checkpoint, written by `factors`.

Columns that the user adds (a transferability, say) stay, with their values, and so do comments: the
lines that begin with #.
"""

import contextlib
import csv
import io
import math
import os
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TextIO

from console import InputError
from safe_io import atomic_write

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

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
# What a row is of: the images of both data sets, their size, and the parameters.
KEY = ("dataset", "samples", "classes", "seed", "sha256", "source", "image_size")
# What the ruler of G is of.
RULER = ("sha256", "source", "image_size")
# Other hardware and TF32 change a median by far less, other source images by more.
SAME = 0.01


class FactorTable(NamedTuple):
    """Column names in the order of the file, and the rows, all values as text.

    comments: how many records (the header and rows) stand above a comment, and the comment.
    """

    columns: list[str]
    rows: list[dict[str, str]]
    comments: list[tuple[int, str]]


def read(path: Path) -> FactorTable:
    """The table in a file; an empty one where there is no file or nothing in it.

    Raises InputError for a file that is no table of this kind.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            columns, rows, comments = [], [], []
            for line, record in records(file):
                if isinstance(record, str):
                    comments.append((len(rows) + bool(columns), record))
                elif not columns:
                    columns = record
                elif len(record) != len(columns):
                    raise InputError(f"{path}, line {line}: another number of values than columns")
                else:
                    rows.append(dict(zip(columns, record, strict=True)))
            columns = columns or list(COLUMNS)
    except FileNotFoundError:
        return FactorTable(list(COLUMNS), [], [])
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
    return FactorTable(columns, rows, comments)


def records(file: TextIO) -> Iterator[tuple[int, list[str] | str]]:
    """Line number (from 1) and values of every record, or a comment as it stands; no blank lines.

    A value in quotes may hold lines that begin with #.
    """
    number = 0
    for line in file:
        number += 1
        if line.startswith("#"):
            yield number, line.rstrip("\r\n")
            continue
        reader = csv.reader(chain([line], file))
        values = next(reader)
        number += reader.line_num - 1
        if values:
            yield number, values


def matches(row: Mapping[str, str], other: Mapping[str, object], columns: tuple[str, ...]) -> bool:
    """Whether two rows agree in the columns."""
    return all(row[name] == text(other[name]) for name in columns)


def text(value: object) -> str:
    """A value as it is written: floats with nine digits."""
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def check_ruler(path: Path, table: FactorTable, row: Mapping[str, object]) -> None:
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
    last. Returns whether there was one. Several processes may put rows into one file.
    """
    with locked(path.parent):
        table = read(path)
        new = {name: text(row[name]) for name in COLUMNS}
        old = next((other for other in table.rows if matches(other, row, KEY)), None)
        if old is None:
            table.rows.append(new)
        else:
            old.update(new)
        atomic_write(path, written(table))
    return old is not None


def written(table: FactorTable) -> str:
    """The table as CSV."""
    file = io.StringIO()
    writer = csv.DictWriter(file, table.columns, lineterminator="\n")
    header = dict(zip(table.columns, table.columns, strict=True))
    for place, record in enumerate([header, *table.rows, None]):
        file.writelines(f"{comment}\n" for above, comment in table.comments if above == place)
        if record is not None:
            writer.writerow(record)
    return file.getvalue()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep the other processes of this machine out that lock the folder.

    Not the file, which is replaced. Where a folder cannot be locked, go without.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            if fcntl is not None:
                descriptor = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
