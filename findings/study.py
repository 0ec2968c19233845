"""Fine-tune and measure every row of a plan: the study of data against optimiser steps.

    python -m findings study findings/plan.csv --data_dir DIR -r R.pth -a A.pth --out DIR

A row of the plan is a run: how many training images (samples) of how many classes, for how many
optimiser steps, with which batch_size, lr, weight_decay and seed, and from which start: `theta_A`
(-a) or `null`, another random initialisation drawn here by the row's seed. Empty cells mean all
samples, all classes, and finetune.py's defaults. The rate is annealed to 0 at the last step, whose
parameters are kept; there is no validation before it.

Every run is finetune.py, cal_transferability.py and an evaluation of a fixed draw of training
images (the probe: without augmentation, in evaluation mode). Finished rows are skipped, so the same
command goes on after an interruption, and several processes may work on one plan. A row that fails
is reported and passed over. results.csv in --out has a row per finished run, and the summary fits
ln T = a + b ln N + c ln S to it (see findings.summary).
"""

import argparse
import csv
import io
import json
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import torch

import cal_transferability
import finetune
import pretrain_on_ImageNet
from datasets import full_name
from evaluate import evaluate_file
from findings import summary
from findings.table import read_table
from models import ARCHS, checkpoint
from safe_io import ArgumentParser, InputError, atomic_write, check_output, integer, run, say, warn
from training.runstate import Busy

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
# Of X.json, as they are.
RECORDED = ("epochs", "sum_lr", "kept_epoch", "train_loss", "val_acc", "seconds")


class Planned(NamedTuple):
    """One run of the plan: its name, which is that of its files, and column -> cell."""

    name: str
    cells: dict[str, str]

    @property
    def seed(self) -> int:
        return int(self.cells["seed"])


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(__doc__, prog="python -m findings study")
    add = parser.add_argument
    add("plan", type=Path, help=f"CSV file with the columns {', '.join(COLUMNS)}")
    add("--data_dir", required=True, help="folder of the data set")
    add("-r", required=True, help="file of theta_r; a bare name: in ckpt/")
    add("-a", required=True, help="file of theta_A; a bare name: in ckpt/")
    add("--arch", choices=ARCHS, metavar="ARCH", default="resnet50_w16", help="of theta_A")
    add("--image_size", type=integer(32), help="pixels a side (default: as finetune.py)")
    add("--out", type=Path, required=True, help="folder for checkpoints, logs and results.csv")
    add("--probe", type=integer(1), default=500, help="training images of the probe, at most")
    add("--num_workers", type=integer(0), default=1, help="processes that load images")
    add("--device", default="auto", help="as for finetune.py")
    add("--print_commands", action="store_true", help="print a command line per unfinished row")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    args = parse_args(argv)
    args.r, args.a = checkpoint.locate(args.r), checkpoint.locate(args.a)
    plan = read_plan(args)
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {args.out}: {error.strerror}") from error
    results = check_output(args.out / "results.csv")
    settings = {
        "r_sha256": checkpoint.sha256(args.r),
        "a_sha256": checkpoint.sha256(args.a),
        "arch": args.arch,
        "image_size": args.image_size,
        "probe": args.probe,
    }
    check_results(results)
    waiting = [row for row in plan if not is_finished(args.out, row, settings)]
    if args.print_commands:
        for row in waiting:
            commands = [
                *(
                    f"python pretrain_on_ImageNet.py {shlex.join(x)}"
                    for x in start_words(args, row)
                ),
                f"python finetune.py {shlex.join(finetune_words(args, row))}",
            ]
            say(" && ".join(commands))
        return 0

    failed = 0
    for number, row in enumerate(waiting, start=1):
        if is_finished(args.out, row, settings):
            continue  # another process has done it meanwhile
        say(f"run {number} of {len(waiting)}: {row.name}")
        code = run(lambda row=row: attempt(args, row, settings))
        if code >= 128:  # a signal
            return code
        if code:
            failed += 1
            warn(f"{row.name} failed and is passed over")
        write_results(results, args.out, plan)
    write_results(results, args.out, plan)
    if results.exists():
        for line in summary.lines(read_table(results)):
            say(line)
        say(results.resolve())
    return 1 if failed else 0


def check_results(path: Path) -> None:
    """Raise InputError for a results.csv that is not of a study, and would be lost."""
    if path.exists() and "a_sha256" not in read_table(path).columns:
        raise InputError(f"{path} is not the table of a study; give another folder for --out")


def attempt(args: argparse.Namespace, row: Planned, settings: dict[str, Any]) -> None:
    """Do one run, unless another process is at it."""
    try:
        run_row(args, row, settings)
    except Busy as busy:
        say(f"left to another process: {busy}")


def read_plan(args: argparse.Namespace) -> list[Planned]:
    """The runs; InputError naming the line of a cell that is not as it must be."""
    path = args.plan
    table = read_table(path)
    needed = ("dataset", "start", "steps", "seed")
    unknown = [column for column in table.columns if column not in COLUMNS]
    missing = [column for column in needed if column not in table.columns]
    if unknown or missing:
        what = f"does not know the column {unknown[0]}" if unknown else f"lacks {missing[0]}"
        raise InputError(f"{path} {what}; the columns are {', '.join(COLUMNS)}")
    plan = []
    for row in table.rows:
        cells = {column: row.cells.get(column, "") for column in COLUMNS}
        place = f"{path} line {row.line}"
        for column in needed:
            if not cells[column]:
                raise InputError(f"{place}: {column} is empty; every row needs one")
        if cells["start"] not in STARTS:
            start = cells["start"]
            raise InputError(f"{place}: start is {start}; it must be one of {', '.join(STARTS)}")
        try:
            full_name(cells["dataset"])
            parts = [f"{column}{cells[column]}" for column in OPTIONS if cells[column]]
            planned = Planned("_".join([cells["dataset"], cells["start"], *parts]), cells)
            finetune.parse_args(finetune_words(args, planned))
        except (InputError, ValueError) as error:
            what = str(error).partition(" (see ")[0]
            raise InputError(f"{place}: {what}; correct the row") from error
        plan.append(planned)
    if not plan:
        raise InputError(f"{path} has no rows")
    return plan


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
    size = ["--image_size", str(args.image_size)] if args.image_size else []
    words = ["--max_epoch", "0", "--arch", args.arch, "--seed", str(1000 + row.seed), *size]
    return [[*words, "-r", str(start_file(args, row))]]


def finetune_words(args: argparse.Namespace, row: Planned) -> list[str]:
    """Arguments of finetune.py."""
    words = ["--dataset", row.cells["dataset"], "--data_dir", args.data_dir, "--arch", args.arch]
    words += ["--image_size", str(args.image_size)] if args.image_size else []
    for column, option in OPTIONS.items():
        words += [option, row.cells[column]] if row.cells[column] else []
    # An interval longer than the run: the last epoch is always validated.
    words += ["--keep", "last", "--val_interval", row.cells["steps"], "--resume"]
    words += ["--num_workers", str(args.num_workers), "--device", args.device]
    return [*words, "-a", str(start_file(args, row)), "-b", str(args.out / f"{row.name}.pth")]


def run_row(args: argparse.Namespace, row: Planned, settings: dict[str, Any]) -> None:
    """Fine-tune, measure and evaluate; write the result beside the checkpoint.

    settings: what all rows have in common, which the result remembers. Raises InputError where the
    checkpoint is there already, but from another start.
    """
    path = args.out / f"{row.name}.pth"
    for words in start_words(args, row):
        pretrain_on_ImageNet.main(words)
    finetune.main(finetune_words(args, row))

    measured = args.out / f"{row.name}_T.json"
    files = ["-r", str(args.r), "-a", str(start_file(args, row)), "-b", str(path)]
    cal_transferability.main([*files, "--json", str(measured), "--no_plot"])
    (result,) = read_json(measured)["results"]
    record = read_json(path.with_suffix(".json"))
    if record["parent_sha256"] != checkpoint.sha256(start_file(args, row)):
        raise InputError(f"{path} was trained from another start; give another folder for --out")
    probe_loss, probe_acc, _ = evaluate_file(
        path,
        arch=args.arch,
        dataset=row.cells["dataset"],
        data_dir=args.data_dir,
        image_size=args.image_size,
        split="train",
        max_classes=int(row.cells["classes"] or 0) or None,
        max_samples=min(args.probe, record["train_images"]),
        seed=row.seed,
        device=torch.device("cpu"),
    )
    found = {
        **row.cells,
        **settings,
        **{key: record[key] for key in RECORDED},
        "probe_loss": probe_loss,
        "probe_acc": probe_acc,
        "transferability": result["transferability"],
        "geometric_mean": result["geometric_mean"],
    }
    # What a user of finetune.py has left empty.
    found |= {key: record["args"][key] for key in ("batch_size", "lr", "weight_decay")}
    found |= {"samples": record["train_images"], "classes": len(record["classes"])}
    layers = [layer for layer in result["layers"] if layer["distance_a_b"] is not None]
    for prefix, key in (
        ("T", "transferability"),
        ("distance_r_b", "distance_r_b"),
        ("distance_a_b", "distance_a_b"),
    ):
        found |= {f"{prefix} {layer['name']}": layer[key] for layer in layers}
    atomic_write(result_file(args.out, row), json.dumps(found, indent=1) + "\n")


def result_file(out: Path, row: Planned) -> Path:
    """What a finished run has left for the table; a process of its own may write each."""
    return out / f"{row.name}_result.json"


def is_finished(out: Path, row: Planned, settings: dict[str, Any]) -> bool:
    """Whether the run has a result; InputError for one of other settings."""
    file = result_file(out, row)
    if not file.exists():
        return False
    found = read_json(file)
    for key, value in settings.items():
        if found.get(key) != value:
            raise InputError(
                f"{file} is of another {key} ({found.get(key)}, now {value}); give another folder "
                "for --out"
            )
    return True


def read_json(path: Path) -> dict[str, Any]:
    """The content of a JSON file that this program or a script has written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        error = ValueError("no object")
    except (OSError, ValueError) as caught:
        error = caught
    raise InputError(f"cannot read {path}: {error}; remove it to run the row again") from error


def write_results(path: Path, out: Path, plan: list[Planned]) -> None:
    """Write results.csv: a row for every finished run of the plan, in its order."""
    rows = [read_json(file) for file in (result_file(out, row) for row in plan) if file.exists()]
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    if rows:
        atomic_write(path, text.getvalue())
