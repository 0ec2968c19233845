"""The plan of a study: its rows, and the command lines of each."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import finetune
from console import InputError
from datasets import full_name

from .reader import RANDOM, read_table

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
STARTS = ("theta_A", "random")
COLUMNS = ("dataset", "start", *OPTIONS)
NEEDED = ("dataset", "start", "steps", "seed")


class Planned(NamedTuple):
    """One run of the plan: its name, which is that of its files, and column -> cell."""

    name: str
    cells: dict[str, str]

    @property
    def seed(self) -> int:
        return int(self.cells["seed"])


@dataclass(frozen=True)
class Setup:
    """What all runs of a study have in common.

    r, a: files of theta_r and theta_A. arch: None while it is not known. out: folder of the runs.
    probe: number of its images, at most.
    """

    data_dir: str
    r: Path
    a: Path
    arch: str | None
    image_size: int | None
    out: Path
    probe: int
    num_workers: int
    device: str

    def start_file(self, row: Planned) -> Path:
        """The file that the run starts from."""
        return (
            self.a if row.cells["start"] == "theta_A" else self.out / f"random_seed{row.seed}.pth"
        )

    def start_words(self, row: Planned) -> list[str]:
        """Arguments of pretrain_on_ImageNet.py that write the start; none for theta_A."""
        if row.cells["start"] == "theta_A":
            return []
        # theta_r itself has, by default, seed 0.
        words = ["--max_epoch", "0", *self.network_words(), "--seed", str(1000 + row.seed)]
        return [*words, "-r", str(self.start_file(row))]

    def finetune_words(self, row: Planned) -> list[str]:
        """Arguments of finetune.py."""
        words = ["--dataset", row.cells["dataset"], "--data_dir", self.data_dir]
        words += self.network_words()
        for column, option in OPTIONS.items():
            words += [option, row.cells[column]] if row.cells[column] else []
        # An interval longer than the run: the last epoch is always validated.
        words += ["--keep", "last", "--val_interval", row.cells["steps"], "--resume"]
        words += ["--num_workers", str(self.num_workers), "--device", self.device]
        return [*words, "-a", str(self.start_file(row)), "-b", str(self.out / f"{row.name}.pth")]

    def network_words(self) -> list[str]:
        """The network, where it is known yet, and its image size, where one is given."""
        words = ["--arch", self.arch] if self.arch else []
        return words + (["--image_size", str(self.image_size)] if self.image_size else [])

    def command_line(self, row: Planned) -> str:
        """The scripts of the run in one line for a shell."""
        command = f"python finetune.py {shlex.join(self.finetune_words(row))}"
        start = self.start_words(row)
        if start:
            return f"python pretrain_on_ImageNet.py {shlex.join(start)} && {command}"
        return command


def read_plan(path: Path, setup: Setup) -> list[Planned]:
    """The runs of a plan; InputError naming the line of a wrong cell or of a repeated run."""
    table = read_table(path)
    unknown = [column for column in table.columns if column not in COLUMNS]
    missing = [column for column in NEEDED if column not in table.columns]
    if unknown or missing:
        fault = f"does not know the column {unknown[0]}" if unknown else f"lacks {missing[0]}"
        raise InputError(f"{path} {fault}; the columns are {', '.join(COLUMNS)}")
    if table.rows.empty:
        raise InputError(f"{path} has no rows")
    plan: list[Planned] = []
    lines: dict[tuple[str, ...], int] = {}
    for line, row in table.rows.iterrows():
        try:
            planned = read_row({column: row.get(column, "") for column in COLUMNS})
            options = vars(finetune.parse_args(setup.finetune_words(planned)))
        except (InputError, ValueError) as error:
            fault = str(error).partition(" (see ")[0]
            raise InputError(f"{path} line {line}: {fault}") from error
        # Options as they are meant: 1e-4 is 0.0001, and an empty cell the default. The file that
        # is written has the text of the cells in its name.
        key = tuple(str(value) for option, value in options.items() if option != "b")
        first = lines.setdefault(key, line)
        if first != line:
            raise InputError(
                f"{path} line {line}: the same run as line {first}; remove one of them"
            )
        plan.append(planned)
    return plan


def read_row(cells: dict[str, str]) -> Planned:
    """The run of a row; InputError where it cannot be one."""
    for column in NEEDED:
        if not cells[column]:
            raise InputError(f"{column} is empty; every row needs one")
    if cells["start"] in RANDOM:
        cells["start"] = RANDOM[0]
    if cells["start"] not in STARTS:
        raise InputError(f"start is {cells['start']}; it must be one of {', '.join(STARTS)}")
    cells["dataset"] = full_name(cells["dataset"])
    parts = [f"{column}{cells[column]}" for column in OPTIONS if cells[column]]
    return Planned("_".join([cells["dataset"], cells["start"], *parts]), cells)
