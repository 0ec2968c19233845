"""The plan of a study: its rows, and the commands that each of them is."""

import argparse
import shlex
from pathlib import Path
from typing import NamedTuple

import finetune
from console import InputError
from datasets import full_name

from .table import Row, Table, read_table

# Column of the plan -> option of finetune.py.
OPTIONS = {
    "samples": "--max_samples",
    "classes": "--max_classes",
    "steps": "--max_steps",
    "batch_size": "--batch_size",
    "lr": "--lr",
    "weight_decay": "--weight_decay",
    "seed": "--seed",
}
STARTS = ("theta_A", "null")
COLUMNS = ("dataset", "start", *OPTIONS)
NEEDED = ("dataset", "start", "steps", "seed")


class Planned(NamedTuple):
    """One run of the plan: its name, which is that of its files, and column -> cell."""

    name: str
    cells: dict[str, str]

    @property
    def seed(self) -> int:
        return int(self.cells["seed"])


def read_plan(args: argparse.Namespace) -> list[Planned]:
    """The runs; InputError naming the line of a cell that is not as it must be, or of a repetition.

    args: options of the study.
    """
    table = read_table(args.plan)
    check_columns(table)
    plan, seen = [], {}
    for row in table.rows:
        place = f"{args.plan} line {row.line}"
        planned = read_row(row, place)
        try:
            options = vars(finetune.parse_args(finetune_words(args, planned)))
        except (InputError, ValueError) as error:
            what = str(error).partition(" (see ")[0]
            raise InputError(f"{place}: {what}; correct the row") from error
        # Options as they are meant: 1e-4 is 0.0001, and an empty cell the default. The file that
        # is written has the text of the cells in its name.
        key = tuple(str(value) for option, value in options.items() if option != "b")
        first = seen.setdefault(key, row.line)
        if first != row.line:
            raise InputError(f"{place}: the same run as line {first}; remove one of them")
        plan.append(planned)
    if not plan:
        raise InputError(f"{args.plan} has no rows")
    return plan


def check_columns(table: Table) -> None:
    """Raise InputError for a column that is unknown or missing."""
    unknown = [column for column in table.columns if column not in COLUMNS]
    missing = [column for column in NEEDED if column not in table.columns]
    if unknown or missing:
        what = f"does not know the column {unknown[0]}" if unknown else f"lacks {missing[0]}"
        raise InputError(f"{table.path} {what}; the columns are {', '.join(COLUMNS)}")


def read_row(row: Row, place: str) -> Planned:
    """The run of a row; InputError, which begins with `place`, where it cannot be one."""
    cells = {column: row.cells.get(column, "") for column in COLUMNS}
    for column in NEEDED:
        if not cells[column]:
            raise InputError(f"{place}: {column} is empty; every row needs one")
    if cells["start"] not in STARTS:
        start = cells["start"]
        raise InputError(f"{place}: start is {start}; it must be one of {', '.join(STARTS)}")
    try:
        cells["dataset"] = full_name(cells["dataset"])
    except InputError as error:
        raise InputError(f"{place}: {error}; correct the row") from error
    parts = [f"{column}{cells[column]}" for column in OPTIONS if cells[column]]
    return Planned("_".join([cells["dataset"], cells["start"], *parts]), cells)


def start_file(args: argparse.Namespace, row: Planned) -> Path:
    """Where the run starts from."""
    if row.cells["start"] == "theta_A":
        return args.a
    return args.out / f"null_seed{row.seed}.pth"


def start_words(args: argparse.Namespace, row: Planned) -> list[list[str]]:
    """Arguments of pretrain_on_ImageNet.py that write the start, where it has to be written."""
    if row.cells["start"] == "theta_A":
        return []
    # theta_r itself has, by default, seed 0.
    words = ["--max_epoch", "0", *network_words(args), "--seed", str(1000 + row.seed)]
    return [[*words, "-r", str(start_file(args, row))]]


def finetune_words(args: argparse.Namespace, row: Planned) -> list[str]:
    """Arguments of finetune.py."""
    words = ["--dataset", row.cells["dataset"], "--data_dir", args.data_dir, *network_words(args)]
    for column, option in OPTIONS.items():
        words += [option, row.cells[column]] if row.cells[column] else []
    # An interval longer than the run: the last epoch is always validated.
    words += ["--keep", "last", "--val_interval", row.cells["steps"], "--resume"]
    words += ["--num_workers", str(args.num_workers), "--device", args.device]
    return [*words, "-a", str(start_file(args, row)), "-b", str(args.out / f"{row.name}.pth")]


def network_words(args: argparse.Namespace) -> list[str]:
    """The network, where it is known yet, and its image size, where one is given."""
    words = ["--arch", args.arch] if args.arch else []
    return words + (["--image_size", str(args.image_size)] if args.image_size else [])


def command_line(args: argparse.Namespace, row: Planned) -> str:
    """The scripts of the run in one line for a shell."""
    commands = [
        f"python pretrain_on_ImageNet.py {shlex.join(words)}" for words in start_words(args, row)
    ]
    commands.append(f"python finetune.py {shlex.join(finetune_words(args, row))}")
    return " && ".join(commands)
