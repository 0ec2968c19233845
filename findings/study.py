"""Fine-tune and measure every row of a plan: the study of data against optimiser steps.

    python -m findings study findings/plan.csv --data_dir DIR -r R.pth -a A.pth --out DIR

A row of the plan is a run: number of training images (samples), classes and optimiser steps;
batch_size, lr, weight_decay and seed; and its start, `theta_A` (-a) or `random`, another random
initialisation drawn here by the row's seed. Empty cells mean all samples, all classes, and
finetune.py's defaults. The rate is annealed to 0 at the last step, whose parameters are kept; there
is no validation before it.

Every run is finetune.py, cal_transferability.py and an evaluation of a fixed draw of training
images (the probe: without augmentation, in evaluation mode). Finished rows are skipped, so the same
command goes on after an interruption, and several processes may work on one plan. A row that fails
is reported and passed over. results.csv in --out has a row per finished run, and the summary of it
is printed (see findings.summary).
"""

import argparse
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import cal_transferability
import finetune
import pretrain_on_ImageNet
from console import ArgumentParser, InputError, integer, run, say, warn
from datasets import find, load
from evaluate import evaluate_file
from models import ARCHS, checkpoint, default_image_size, paths
from models.comparison import architecture, check_same_network
from safe_io import Busy, atomic_write, check_output, sha256
from training.device import choose_device

from . import summary
from .plan import COLUMNS, Planned, Setup, read_plan
from .reader import read_json, read_table

# Of X.json, as they are.
RECORDED = ("epochs", "sum_lr", "kept_epoch", "train_loss", "val_acc", "seconds")
# Of step 3's JSON file: numbers of a layer -> first word of their columns.
MEASURED = {"transferability": "T", "distance_r_b": "distance_r_b", "distance_a_b": "distance_a_b"}
ADVICE = "remove it to run the row again"


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(__doc__, prog="python -m findings study")
    add = parser.add_argument
    add("plan", type=Path, help=f"CSV file with the columns {', '.join(COLUMNS)}")
    add("--data_dir", required=True, help="folder of the data set")
    add("-r", required=True, help="file of theta_r; a bare name: in ckpt/")
    add("-a", required=True, help="file of theta_A; a bare name: in ckpt/")
    add("--arch", choices=ARCHS, metavar="ARCH", help="(default: from the keys of theta_A)")
    add("--image_size", type=integer(32), help="pixels a side (default: as finetune.py)")
    add("--out", type=Path, required=True, help="folder for checkpoints, logs and results.csv")
    add("--probe", type=integer(1), default=500, help="training images of the probe, at most")
    add("--num_workers", type=integer(0), default=1, help="processes that load images")
    add("--device", default="auto", help="as for finetune.py; the probe's, too")
    add("--print_commands", action="store_true", help="print a command line per unfinished row")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    args = parse_args(argv)
    args.r, args.a = paths.locate(args.r), paths.locate(args.a)
    setup = Setup(**{field.name: getattr(args, field.name) for field in fields(Setup)})
    plan = read_plan(args.plan, setup)
    setup = replace(setup, arch=check_networks(setup.r, setup.a, setup.arch))
    settings = {
        "r_sha256": sha256(setup.r),
        "a_sha256": sha256(setup.a),
        "arch": setup.arch,
        "image_size": setup.image_size,
        "probe": setup.probe,
    }

    # Whatever is wrong with the files ends the command here, before hours of training.
    unfinished = [row for row in plan if not is_finished(setup.out, row, settings)]
    missing = check_data({row.cells["dataset"] for row in unfinished}, setup.data_dir)
    ready = [row for row in unfinished if row.cells["dataset"] not in missing]
    try:
        setup.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {setup.out}: {error.strerror}") from error
    results = check_output(setup.out / "results.csv")
    if results.exists() and "a_sha256" not in read_table(results).columns:
        raise InputError(f"{results} is not the table of a study; give another folder for --out")
    if args.print_commands:
        for row in ready:
            say(setup.command_line(row))
        return 1 if missing else 0

    code, failed = run_rows(setup, ready, plan, settings)
    if code:
        return code
    write_results(results, plan)
    if results.exists():
        for line in summary.lines(read_table(results)):
            say(line)
        say(results.resolve())
    return 1 if failed or missing else 0


def run_rows(
    setup: Setup, rows: list[Planned], plan: list[Planned], settings: dict[str, Any]
) -> tuple[int, int]:
    """Do the runs, and write results.csv after each.

    settings: what all rows have in common, which their results remember. Returns the exit code of a
    signal that has ended them, or 0, and the number of failed runs.
    """
    device = choose_device(setup.device)
    failed = 0
    for number, row in enumerate(rows, start=1):
        if is_finished(setup.out, row, settings):
            continue  # another process has done it meanwhile
        say(f"run {number} of {len(rows)}: {row.name}")
        code = run(lambda row=row: attempt(setup, row, settings, device))
        if code >= 128:
            say("the study goes on with the same command, without --resume")
            return code, failed
        if code:
            failed += 1
            warn(f"{row.name} failed and is passed over")
        write_results(setup.out / "results.csv", plan)
    return 0, failed


def check_networks(r: Path, a: Path, arch: str | None) -> str:
    """The network of theta_r and theta_A; InputError where they, or --arch, are of different ones.

    Before anything is trained: step 3 would refuse them after it.
    """
    theta_a = checkpoint.read(a)
    theta_r = checkpoint.read(r).like(theta_a)
    check_same_network(theta_a.partition, theta_r.partition, name_a=str(a), name_other=str(r))
    return architecture(theta_a, arch)


def check_data(names: set[str], data_dir: str) -> set[str]:
    """The data sets that are not in the folder, after a warning for each.

    Raises InputError where none of several, or the only one, is there.
    """
    missing = {}
    for name in sorted(names):
        try:
            find(name, data_dir)
        except InputError as error:
            missing[name] = error
    for name, error in missing.items():
        if len(missing) == len(names):
            raise error
        warn(f"{error}; the rows of {name} are passed over")
    return set(missing)


def attempt(setup: Setup, row: Planned, settings: dict[str, Any], device: torch.device) -> None:
    """Do one run, unless another process is at it."""
    try:
        run_row(setup, row, settings, device)
    except Busy as busy:
        say(f"left to another process: {busy}")


def run_row(setup: Setup, row: Planned, settings: dict[str, Any], device: torch.device) -> None:
    """Fine-tune, measure and evaluate; write the result beside the checkpoint.

    Raises InputError where the checkpoint is there already, but from another start.
    """
    path, start = setup.out / f"{row.name}.pth", setup.start_file(row)
    if words := setup.start_words(row):
        pretrain_on_ImageNet.main(words)
    finetune.main(setup.finetune_words(row))

    measured = setup.out / f"{row.name}_T.json"
    files = ["-r", str(setup.r), "-a", str(start), "-b", str(path)]
    cal_transferability.main([*files, "--json", str(measured), "--no_plot"])
    (result,) = read_json(measured, advice=ADVICE)["results"]
    record = read_json(path.with_suffix(".json"), advice=ADVICE)
    if record["parent_sha256"] != sha256(start):
        raise InputError(f"{path} was trained from another start; give another folder for --out")
    probe_loss, probe_acc = probe(setup, row, record["train_images"], device)
    # In the order of the columns of results.csv. The record has what the plan leaves empty.
    cells = {
        **row.cells,
        "samples": record["train_images"],
        "classes": len(record["classes"]),
        **{key: record["args"][key] for key in ("batch_size", "lr", "weight_decay")},
        **settings,
        **{key: record[key] for key in RECORDED},
        "probe_loss": probe_loss,
        "probe_acc": probe_acc,
        "transferability": result["transferability"],
        "geometric_mean": result["geometric_mean"],
    }
    for key, word in MEASURED.items():
        for layer in result["layers"]:
            if layer["distance_a_b"] is not None:  # not the classifier
                cells[f"{word} {layer['name']}"] = layer[key]
    atomic_write(result_file(setup.out, row), json.dumps(cells, indent=1) + "\n")


def probe(setup: Setup, row: Planned, images: int, device: torch.device) -> tuple[float, float]:
    """Loss and accuracy on the fixed draw of training images. images: the run's own number."""
    train_set, _, _ = load(
        row.cells["dataset"],
        setup.data_dir,
        image_size=setup.image_size or default_image_size(setup.arch),
        max_classes=int(row.cells["classes"] or 0) or None,
        max_samples=min(setup.probe, images),
        seed=row.seed,
    )
    loss, accuracy, _ = evaluate_file(
        checkpoint.read(setup.out / f"{row.name}.pth"),
        train_set,
        arch=setup.arch,
        num_workers=setup.num_workers,
        device=device,
    )
    return loss, accuracy


def result_file(out: Path, row: Planned) -> Path:
    """The row of a finished run for the table, in a file that one process alone writes."""
    return out / f"{row.name}_result.json"


def is_finished(out: Path, row: Planned, settings: dict[str, Any]) -> bool:
    """Whether the run has a result; InputError for one of other settings."""
    file = result_file(out, row)
    if not file.exists():
        return False
    result = read_json(file, advice=ADVICE)
    for key, value in settings.items():
        if result.get(key) != value:
            raise InputError(
                f"{file} is of another {key} ({result.get(key)}, now {value}); give another folder "
                "for --out"
            )
    return True


def write_results(path: Path, plan: list[Planned]) -> None:
    """Write results.csv: a row for every finished run of the plan, in its order."""
    files = [result_file(path.parent, row) for row in plan]
    rows = [read_json(file, advice=ADVICE) for file in files if file.exists()]
    if rows:
        table = pd.DataFrame(rows, dtype=object)
        atomic_write(path, table.to_csv(index=False, lineterminator="\n"))
