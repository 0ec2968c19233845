"""Fine-tune and measure every row of a plan: a study, and its table.

    python -m findings study findings/plan.csv --data_dir DIR -r R.pth -a A.pth --out DIR

A row of the plan is a run of finetune.py and cal_transferability.py. Columns: block (a name of your
own; a run of two blocks is done once and has a row in each); dataset, in folder under --data_dir;
start: theta_A (-a), random (another random initialisation, one for all runs; random:S is that of
seed S) or shuffled (theta_A with its weights permuted); labels: true or random; samples (training
images) and classes; steps or epochs; batch_size, lr, weight_decay, seed; and r, a for other files
than -r and -a. Empty cells mean all samples, all classes, and finetune.py's defaults. The rate is
annealed to 0 at the last step, whose parameters are kept.

Finished rows are skipped, so the same command goes on after an interruption; several processes may
work on one plan, and with --print_commands several machines. A row that fails is reported and
passed over. results.csv in --out has a row per finished run, with the companions of T, and, with
--source_dir, the factors of its data set; the summary of it is printed (see findings.summary).
Checkpoints may be deleted once all seeds of a plan are done: their agreement is known then.
"""

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from console import ArgumentParser, InputError, integer, run, say, warn
from datasets import find
from models import ARCHS, checkpoint, paths
from models.comparison import architecture, check_same_network
from safe_io import atomic_write, check_output, locked, sha256

from . import factors, summary
from .plan import COLUMNS, Planned, Setup, command_line, read_plan
from .reader import read_json, read_table
from .runs import ADVICE, agreement_file, attempt, result_file, write_agreement

# Of the table of factors, beside the number of classes.
FACTORS = ("G", "G_error", "frechet", "D", "D_error", "D_share", "D_share_error")
# Columns that tell a row of the table from all others.
KEY = (*COLUMNS[:-2], "r_sha256", "a_sha256")

# Settings of a row -> its values that its result must have, too.
Settings = Callable[[Planned], Mapping[str, Any]]


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(__doc__, prog="python -m findings study")
    add = parser.add_argument
    add("plan", type=Path, help=f"CSV file with the columns {', '.join(COLUMNS)}")
    add("--data_dir", required=True, help="folder of the data set, or of the folders of the plan")
    add("-r", required=True, help="file of theta_r; a bare name: in ckpt/")
    add("-a", required=True, help="file of theta_A; a bare name: in ckpt/")
    add("--arch", choices=ARCHS, metavar="ARCH", help="(default: from the keys of theta_A)")
    add("--image_size", type=integer(32), help="pixels a side (default: as finetune.py)")
    add("--out", type=Path, required=True, help="folder for checkpoints, logs and results.csv")
    add("--csv", type=Path, help="table to add the rows to (default: results.csv in --out)")
    add("--source_dir", help="images that theta_A was trained on, to measure the factors")
    add("--source", default="ImageNet", help="their data set")
    add("--factor_samples", type=integer(1), help="training images for the factors (default: all)")
    add("--factors", type=Path, help="table of the factors (default: factors.csv in --out)")
    add("--num_workers", type=integer(0), default=1, help="processes that load images")
    add("--device", default="auto", help="as for finetune.py")
    add("--print_commands", action="store_true", help="print a command line per unfinished run")
    add("--run", action="append", metavar="NAME", help="only this run (default: all of the plan)")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    args = parse_args(argv)
    args.r, args.a = paths.locate(args.r), paths.locate(args.a)
    setup = Setup(**{field.name: getattr(args, field.name) for field in fields(Setup)})
    plan = read_plan(args.plan, setup)
    setup = replace(setup, arch=check_networks(setup, plan))
    settings = settings_of(setup)

    # Whatever is wrong with the files ends the command here, before hours of training.
    unfinished = unfinished_runs(setup, plan, settings, args.run)
    missing = check_data(setup, unfinished)
    ready = [row for row in unfinished if row.task[:2] not in missing]
    try:
        setup.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {setup.out}: {error.strerror}") from error
    results = check_output(args.csv or setup.out / "results.csv")
    if results.exists() and "a_sha256" not in read_table(results).columns:
        raise InputError(f"{results} is not the table of a study; give another file")
    args.factors = check_output(args.factors or setup.out / "factors.csv")
    if args.source_dir:
        # The printed commands stand alone.
        with contextlib.redirect_stdout(sys.stderr if args.print_commands else sys.stdout):
            measure_factors(args, setup, [row for row in plan if row.task[:2] not in missing])
    if args.print_commands:
        for row in ready:
            say(command_line(argv, row))
        return 1 if missing else 0

    def write_table() -> None:
        write_results(results, result_rows(setup, plan, settings, args.factors))

    code, failed = run_rows(setup, ready, plan, settings, write_table)
    if code:
        return code
    write_table()
    if results.exists():
        for line in summary.lines(read_table(results)):
            say(line)
        say(results.resolve())
    return 1 if failed or missing else 0


def run_rows(
    setup: Setup,
    rows: Sequence[Planned],
    plan: Sequence[Planned],
    settings: Settings,
    write_table: Callable[[], None],
) -> tuple[int, int]:
    """Do the runs; write the agreement of their seeds, and the table, after each.

    Returns the exit code of a signal that has ended them, or 0, and the number of failed runs.
    """
    failed = 0
    for progress, row in with_time_left(setup, rows, settings):
        say(progress)
        code = run(lambda row=row: attempt(setup, row, settings(row)))
        if code >= 128:
            say("the study goes on with the same command, without --resume")
            return code, failed
        if code:
            failed += 1
            warn(f"{row.name} failed and is passed over")
        elif is_finished(setup.out, row, settings(row)):
            write_agreements(setup, [other for other in plan if other.cell == row.cell])
        write_table()
    return 0, failed


def with_time_left(
    setup: Setup, rows: Sequence[Planned], settings: Settings
) -> Iterator[tuple[str, Planned]]:
    """The rows that no other process has finished, each with a line of progress.

    The time left is that of the images of all rows still to be done, at the rate of all processes
    since this one began.
    """
    begin, finished = time.monotonic(), set()
    for number, row in enumerate(rows, start=1):
        finished |= {x.name for x in rows if is_finished(setup.out, x, settings(x))}
        if row.name in finished:
            continue
        done = sum(x.images for x in rows if x.name in finished)
        left = sum(x.images for x in rows) - done
        ending = ""
        if done:
            minutes = round((time.monotonic() - begin) * left / done / 60)
            ending = f"; about {minutes // 60} h {minutes % 60:02} min left"
        yield f"run {number} of {len(rows)}{ending}: {row.name}", row


def write_agreements(setup: Setup, seeds: Sequence[Planned]) -> None:
    """The agreement of the seeds of one cell, of which a run may be in several blocks."""
    with locked(agreement_file(setup.out, seeds[0]), wait=True):
        write_agreement(setup, list({row.name: row for row in seeds}.values()))


def check_networks(setup: Setup, plan: Sequence[Planned]) -> str:
    """The network of theta_r and theta_A; InputError where they, or --arch, are of different ones.

    Before anything is trained: step 3 would refuse them after it.
    """
    arch = setup.arch
    for r, a in {(setup.theta_r(row), setup.theta_a(row)): row for row in plan}:
        theta_a = checkpoint.read(a)
        theta_r = checkpoint.read(r).like(theta_a)
        check_same_network(theta_a.partition, theta_r.partition, name_a=str(a), name_other=str(r))
        arch = architecture(theta_a, arch)
    return arch


def settings_of(setup: Setup) -> Settings:
    """Of every row: the files it is measured with, the network, and the image size."""
    digests: dict[Path, str] = {}

    def digest(path: Path) -> str:
        return digests.get(path) or digests.setdefault(path, sha256(path))

    def settings(row: Planned) -> dict[str, Any]:
        return {
            "r_sha256": digest(setup.theta_r(row)),
            "a_sha256": digest(setup.theta_a(row)),
            "arch": setup.arch,
            "image_size": setup.image_size,
        }

    return settings


def unfinished_runs(
    setup: Setup, plan: Sequence[Planned], settings: Settings, chosen: Sequence[str] | None
) -> list[Planned]:
    """A row for every run that has no result yet; only the `chosen` ones, if any are.

    Raises InputError for a chosen name that the plan does not have.
    """
    runs = {row.name: row for row in reversed(plan)}
    for name in chosen or ():
        if name not in runs:
            raise InputError(f"no run of the plan has the name {name}; see --print_commands")
    return [
        row
        for row in dict(reversed(runs.items())).values()
        if row.name in (chosen or runs) and not is_finished(setup.out, row, settings(row))
    ]


def check_data(setup: Setup, rows: Sequence[Planned]) -> set[tuple[str, str]]:
    """The data sets (dataset, folder) that are not there, after a warning for each.

    Raises InputError where none of several, or the only one, is there.
    """
    places = {row.task[:2]: setup.folder(row) for row in rows}
    missing = {}
    for (name, folder), place in sorted(places.items()):
        try:
            find(name, place)
        except InputError as error:
            missing[name, folder] = error
    for (name, folder), error in missing.items():
        if len(missing) == len(places):
            raise error
        warn(f"{error}; the rows of {folder or name} are passed over")
    return set(missing)


def is_finished(out: Path, row: Planned, settings: Mapping[str, Any]) -> bool:
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


def measure_factors(args: argparse.Namespace, setup: Setup, plan: Sequence[Planned]) -> None:
    """Measure the factors of every data set of the plan that the table has not yet."""
    sources: factors.Sources = {}
    for row in {(row.task, setup.theta_a(row)): row for row in plan}.values():
        a = setup.theta_a(row)
        if factors_of(setup, row, args.factors, sha256(a)):
            continue
        words = ["-a", str(a), "--arch", setup.arch, "--source", args.source]
        words += ["--source_dir", args.source_dir, "--dataset", row.cells["dataset"]]
        words += ["--data_dir", setup.folder(row), "--csv", str(args.factors)]
        words += ["--num_workers", str(setup.num_workers), "--device", setup.device]
        for option, value in (
            ("--max_samples", args.factor_samples),
            ("--max_classes", row.cells["classes"]),
            ("--image_size", setup.image_size),
        ):
            words += [option, str(value)] if value else []
        factors.main(words, sources)


def factors_of(setup: Setup, row: Planned, path: Path, sha256_a: str) -> dict[str, str]:
    """The FACTORS of the row's data set as theta_A sees it; {} where the table has none."""
    rows = read_table(path, new=factors.COLUMNS).rows
    name = factors.name_of(row.cells["dataset"], setup.folder(row))
    same = rows[(rows["dataset"] == name) & (rows["sha256"] == sha256_a)]
    if row.cells["classes"]:
        same = same[same["classes"] == row.cells["classes"]]
    return same.iloc[-1][list(FACTORS)].to_dict() if len(same) else {}


def result_rows(
    setup: Setup, plan: Sequence[Planned], settings: Settings, factor_table: Path
) -> list[dict[str, Any]]:
    """The table of the finished rows of the plan, in its order, as column -> value."""
    table = []
    for row in plan:
        file, agreed = result_file(setup.out, row), agreement_file(setup.out, row)
        if not file.exists():
            continue
        result = read_json(file, advice=ADVICE)
        agreement = read_json(agreed, advice=ADVICE) if agreed.exists() else {}
        found = factors_of(setup, row, factor_table, result["a_sha256"])
        means, layers = (
            {column: value for column, value in result.items() if (" " in column) == of_layer}
            for of_layer in (False, True)
        )
        table.append(
            {
                "block": row.cells["block"],
                **means,
                "agreement_01": agreement.get("agreement_01"),
                "agreement": agreement.get("agreement"),
                **{column: found.get(column) for column in FACTORS},
                **layers,
            }
        )
    return table


def write_results(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of a plan into the table, where others may be of another plan.

    They come together, in the place where the first of them was.
    """
    if not rows:
        return
    text = pd.DataFrame(rows, dtype=object).to_csv(index=False)
    ours = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    with locked(path, wait=True):
        table = read_table(path, new=list(ours.columns)).rows.reset_index(drop=True)
        replaced = pd.MultiIndex.from_frame(table.reindex(columns=KEY)).isin(
            pd.MultiIndex.from_frame(ours[[*KEY]])
        )
        place = int(replaced.argmax()) if replaced.any() else len(table)
        before, after = (part[~replaced[part.index]] for part in (table[:place], table[place:]))
        whole = pd.concat([before, ours, after]).fillna("")
        atomic_write(path, whole.to_csv(index=False, lineterminator="\n"))
