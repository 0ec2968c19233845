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
from pathlib import Path
from typing import Any

import torch

import cal_transferability
import finetune
import pretrain_on_ImageNet
from console import ArgumentParser, InputError, integer, run, say, warn
from datasets import find, load
from evaluate import evaluate_file
from models import ARCHS, checkpoint, default_image_size, paths
from models.architecture import architecture
from models.layers import check_same_network
from safe_io import Busy, atomic_write, check_output, sha256
from training.device import choose_device

from . import summary
from .intervals import import_statsmodels
from .plan import (
    COLUMNS,
    Planned,
    command_line,
    finetune_words,
    read_plan,
    start_file,
    start_words,
)
from .profiles import read_json
from .table import read_table

# Of X.json, as they are.
RECORDED = ("epochs", "sum_lr", "kept_epoch", "train_loss", "val_acc", "seconds")
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
    plan = read_plan(args)
    args.arch = check_networks(args.r, args.a, args.arch)
    settings = {
        "r_sha256": sha256(args.r),
        "a_sha256": sha256(args.a),
        "arch": args.arch,
        "image_size": args.image_size,
        "probe": args.probe,
    }
    waiting = [row for row in plan if not is_finished(args.out, row, settings)]
    missing = check_data({row.cells["dataset"] for row in waiting}, args.data_dir)
    ready = [row for row in waiting if row.cells["dataset"] not in missing]
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {args.out}: {error.strerror}") from error
    results = check_output(args.out / "results.csv")
    check_results(results)
    if args.print_commands:
        for row in ready:
            say(command_line(args, row))
        return 1 if missing else 0

    import_statsmodels()  # for the summary, not after hours of runs
    device = choose_device(args.device)
    code, failed = run_rows(args, ready, plan, settings, device)
    if code:
        return code
    write_results(results, args.out, plan)
    if results.exists():
        for line in summary.lines(read_table(results)):
            say(line)
        say(results.resolve())
    return 1 if failed or missing else 0


def run_rows(
    args: argparse.Namespace,
    rows: list[Planned],
    plan: list[Planned],
    settings: dict[str, Any],
    device: torch.device,
) -> tuple[int, int]:
    """Do the runs, and write results.csv after each.

    Returns the exit code of a signal that has ended them, or 0, and how many have failed.
    """
    failed = 0
    for number, row in enumerate(rows, start=1):
        if is_finished(args.out, row, settings):
            continue  # another process has done it meanwhile
        say(f"run {number} of {len(rows)}: {row.name}")
        code = run(lambda row=row: attempt(args, row, settings, device))
        if code >= 128:
            say("the study goes on with the same command, without --resume")
            return code, failed
        if code:
            failed += 1
            warn(f"{row.name} failed and is passed over")
        write_results(args.out / "results.csv", args.out, plan)
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


def check_results(path: Path) -> None:
    """Raise InputError for a results.csv that is not of a study, and would be lost."""
    if path.exists() and "a_sha256" not in read_table(path).columns:
        raise InputError(f"{path} is not the table of a study; give another folder for --out")


def attempt(
    args: argparse.Namespace, row: Planned, settings: dict[str, Any], device: torch.device
) -> None:
    """Do one run, unless another process is at it."""
    try:
        run_row(args, row, settings, device)
    except Busy as busy:
        say(f"left to another process: {busy}")


def run_row(
    args: argparse.Namespace, row: Planned, settings: dict[str, Any], device: torch.device
) -> None:
    """Fine-tune, measure and evaluate; write the result beside the checkpoint.

    settings: what all rows have in common, which the result remembers. Raises InputError where the
    checkpoint is there already, but from another start.
    """
    path, start = args.out / f"{row.name}.pth", start_file(args, row)
    for words in start_words(args, row):
        pretrain_on_ImageNet.main(words)
    finetune.main(finetune_words(args, row))

    measured = args.out / f"{row.name}_T.json"
    files = ["-r", str(args.r), "-a", str(start), "-b", str(path)]
    cal_transferability.main([*files, "--json", str(measured), "--no_plot"])
    (result,) = read_json(measured, advice=ADVICE)["results"]
    record = read_json(path.with_suffix(".json"), advice=ADVICE)
    if record["parent_sha256"] != sha256(start):
        raise InputError(f"{path} was trained from another start; give another folder for --out")
    probe_loss, probe_acc = probe(args, row, record["train_images"], device)
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
    found |= layer_cells(result["layers"])
    atomic_write(result_file(args.out, row), json.dumps(found, indent=1) + "\n")


def probe(
    args: argparse.Namespace, row: Planned, images: int, device: torch.device
) -> tuple[float, float]:
    """Loss and accuracy on the fixed draw of training images. images: so many the run had."""
    train_set, _, _ = load(
        row.cells["dataset"],
        args.data_dir,
        image_size=args.image_size or default_image_size(args.arch),
        max_classes=int(row.cells["classes"] or 0) or None,
        max_samples=min(args.probe, images),
        seed=row.seed,
    )
    loss, accuracy, _ = evaluate_file(
        checkpoint.read(args.out / f"{row.name}.pth"),
        train_set,
        arch=args.arch,
        num_workers=args.num_workers,
        device=device,
    )
    return loss, accuracy


def layer_cells(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """T and distances of every layer but the classifier, by the names of their columns."""
    return {
        f"{prefix} {layer['name']}": layer[key]
        for prefix, key in (
            ("T", "transferability"),
            ("distance_r_b", "distance_r_b"),
            ("distance_a_b", "distance_a_b"),
        )
        for layer in layers
        if layer["distance_a_b"] is not None
    }


def result_file(out: Path, row: Planned) -> Path:
    """What a finished run has left for the table; a process of its own may write each."""
    return out / f"{row.name}_result.json"


def is_finished(out: Path, row: Planned, settings: dict[str, Any]) -> bool:
    """Whether the run has a result; InputError for one of other settings."""
    file = result_file(out, row)
    if not file.exists():
        return False
    found = read_json(file, advice=ADVICE)
    for key, value in settings.items():
        if found.get(key) != value:
            raise InputError(
                f"{file} is of another {key} ({found.get(key)}, now {value}); give another folder "
                "for --out"
            )
    return True


def write_results(path: Path, out: Path, plan: list[Planned]) -> None:
    """Write results.csv: a row for every finished run of the plan, in its order."""
    files = [result_file(out, row) for row in plan]
    rows = [read_json(file, advice=ADVICE) for file in files if file.exists()]
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    if rows:
        atomic_write(path, text.getvalue())
