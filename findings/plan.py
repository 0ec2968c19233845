"""The plan of a study: its rows, the files they start from, and their arguments."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import finetune
from console import InputError
from datasets import full_name
from models import paths

from .reader import RANDOM, read_table

# Column of the plan -> option of finetune.py.
OPTIONS = {
    "labels": "--labels",
    "samples": "--max_samples",
    "classes": "--max_classes",
    "steps": "--max_steps",
    "epochs": "--max_epoch",
    "batch_size": "--batch_size",
    "lr": "--lr",
    "weight_decay": "--weight_decay",
    "seed": "--seed",
}
COLUMNS = ("block", "dataset", "folder", "start", *OPTIONS, "r", "a")
NEEDED = ("dataset", "start", "seed")
# Words before a number in the name of a run; the other cells stand there as they are.
UNNAMED = ("block", "r", "a")
# The length of a run, of which a row gives one.
LENGTHS = ("steps", "epochs")


@dataclass(frozen=True)
class Planned:
    """One row of the plan: column -> cell, and its line in the file."""

    cells: Mapping[str, str]
    line: int

    @property
    def seed(self) -> int:
        return int(self.cells["seed"])

    @cached_property
    def name(self) -> str:
        """Name of the run, which is that of its files: every cell that is not empty."""
        parts = []
        for column, cell in self.cells.items():
            if column in UNNAMED or not cell:
                continue
            value = Path(cell).name if column == "folder" else cell.replace(":", "")
            words = column in ("dataset", "folder", "start") or not value[0].isdigit()
            parts.append(value if words else column + value)
        # Of several theta_A in one plan.
        parts += [Path(self.cells[column]).stem for column in ("r", "a") if self.cells[column]]
        return "_".join(parts)

    @property
    def cell(self) -> str:
        """What runs have in common that differ in their seed alone."""
        return self.name.replace(f"_seed{self.cells['seed']}", "", 1)

    @property
    def task(self) -> tuple[str, str, str]:
        """Data set, folder and number of classes, which the factors depend on."""
        return self.cells["dataset"], self.cells["folder"], self.cells["classes"]

    @property
    def images(self) -> int:
        """Images of the run that are known before it; 0 where the plan does not tell."""
        number = {column: int(self.cells[column] or 0) for column in (*LENGTHS, "samples")}
        steps = number["steps"] * int(self.cells["batch_size"] or 128)
        return steps or number["epochs"] * number["samples"]


@dataclass(frozen=True)
class Setup:
    """What all runs of a study have in common.

    r, a: files of theta_r and theta_A. arch: None while it is not known. out: folder of the runs.
    """

    data_dir: str
    r: Path
    a: Path
    arch: str | None
    image_size: int | None
    out: Path
    num_workers: int
    device: str

    def folder(self, row: Planned) -> str:
        """Folder of the row's data set."""
        return str(Path(self.data_dir, row.cells["folder"]))

    def theta_r(self, row: Planned) -> Path:
        """File of theta_r, that T is measured with."""
        return paths.locate(row.cells["r"]) if row.cells["r"] else self.r

    def theta_a(self, row: Planned) -> Path:
        """File of theta_A, that the row starts from or whose weights it shuffles."""
        return paths.locate(row.cells["a"]) if row.cells["a"] else self.a

    def start_file(self, row: Planned) -> Path:
        """The file that the run starts from: one for all runs of a kind of start and seed."""
        kind, _, seed = row.cells["start"].partition(":")
        if kind == "theta_A":
            return self.theta_a(row)
        of = f"_{self.theta_a(row).stem}" if kind == "shuffled" else ""
        return self.out / f"{kind}_seed{seed or 0}{of}.pth"

    def random_words(self, row: Planned) -> list[str]:
        """Arguments of pretrain_on_ImageNet.py that write the random start."""
        words = ["--max_epoch", "0", *self.network_words()]
        # theta_r itself has, by default, seed 0.
        seed = 1000 + int(row.cells["start"].partition(":")[2] or 0)
        return [*words, "--seed", str(seed), "-r", str(self.start_file(row))]

    def finetune_words(self, row: Planned) -> list[str]:
        """Arguments of finetune.py."""
        words = ["--dataset", row.cells["dataset"], "--data_dir", self.folder(row)]
        words += self.network_words()
        for column, option in OPTIONS.items():
            words += [option, row.cells[column]] if row.cells[column] else []
        # An interval longer than the run: the last epoch is always validated.
        length = row.cells["steps"] or row.cells["epochs"]
        words += ["--keep", "last", "--val_interval", length, "--resume"]
        words += ["--num_workers", str(self.num_workers), "--device", self.device]
        return [*words, "-a", str(self.start_file(row)), "-b", str(self.out / f"{row.name}.pth")]

    def network_words(self) -> list[str]:
        """The network, where it is known yet, and its image size, where one is given."""
        words = ["--arch", self.arch] if self.arch else []
        return words + (["--image_size", str(self.image_size)] if self.image_size else [])


def command_line(argv: Sequence[str], row: Planned) -> str:
    """The study's own command line for one run, measured and all, for a shell.

    argv: of the study, with --print_commands.
    """
    words = [word for word in argv if word != "--print_commands"]
    return f"python -m findings study {shlex.join([*words, '--run', row.name])}"


def read_plan(path: Path, setup: Setup) -> list[Planned]:
    """The rows of a plan; InputError naming the line of a wrong cell or of a repeated row.

    Rows of two blocks may be of one run.
    """
    table = read_table(path)
    unknown = [column for column in table.columns if column not in COLUMNS]
    missing = [column for column in NEEDED if column not in table.columns]
    if unknown or missing:
        fault = f"does not know the column {unknown[0]}" if unknown else f"lacks {missing[0]}"
        raise InputError(f"{path} {fault}; the columns are {', '.join(COLUMNS)}")
    if table.rows.empty:
        raise InputError(f"{path} has no rows")
    plan: list[Planned] = []
    lines: dict[tuple[str, ...], Planned] = {}
    for line, row in table.rows.iterrows():
        cells = {column: row.get(column, "") for column in COLUMNS}
        try:
            planned = read_row(cells, line)
            options = vars(finetune.parse_args(setup.finetune_words(planned)))
        except (InputError, ValueError) as error:
            fault = str(error).partition(" (see ")[0]
            raise InputError(f"{path} line {line}: {fault}") from error
        # Options as they are meant: 1e-4 is 0.0001, and an empty cell the default. The file that
        # is written has the text of the cells in its name.
        run = tuple(str(value) for option, value in options.items() if option != "b")
        first = lines.setdefault((cells["block"], *run), planned)
        if first is not planned:
            raise InputError(
                f"{path} line {line}: the same run as line {first.line}; remove one of them"
            )
        plan.append(planned)
    return plan


def read_row(cells: dict[str, str], line: int) -> Planned:
    """The run of a row; InputError where it cannot be one."""
    for column in NEEDED:
        if not cells[column]:
            raise InputError(f"{column} is empty; every row needs one")
    if bool(cells["steps"]) == bool(cells["epochs"]):
        fault = "are both given" if cells["steps"] else "are empty"
        raise InputError(f"steps and epochs {fault}; every row needs one of them")
    kind, _, seed = cells["start"].partition(":")
    if kind in RANDOM:
        cells["start"] = cells["start"].replace(kind, RANDOM[0])
    elif kind not in ("theta_A", "shuffled"):
        raise InputError(f"start is {kind}; it must be one of theta_A, random, shuffled")
    if seed and (not seed.isdigit() or kind == "theta_A"):
        raise InputError(f"start is {cells['start']}; give random:SEED or shuffled:SEED")
    cells["dataset"] = full_name(cells["dataset"])
    return Planned(cells, line)
