"""Command-line options that the training scripts share, and those of a recorded run."""

import argparse
import json
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from console import ArgumentParser, InputError, integer, number
from datasets.workers import usable_cores
from models import paths

from .schedule import OPTIMIZERS

Add = Callable[..., argparse.Action]
# Options that --config does not take from a record: the run's files, and how it was started.
NOT_TAKEN = frozenset("r a b resume overwrite".split())


def argument_groups(parser: ArgumentParser) -> tuple[Add, Add, Add, Add]:
    """`add_argument` of the groups that --help shows: task, optimisation, machine, output."""
    names = ("task", "optimisation", "machine", "output")
    return tuple(parser.add_argument_group(name).add_argument for name in names)


def parse(parser: ArgumentParser, argv: list[str] | None, *, script: str) -> argparse.Namespace:
    """Parse a command line; with --config, the options that it does not give are of a record.

    The result has no `config`: it is the same as if all options had been given. script: the name in
    the records of this parser's runs. Raises InputError as `recorded_words` does.
    """
    argv = sys.argv[1:] if argv is None else argv
    finder = ArgumentParser("", parser.prog, add_help=False)
    finder.add_argument("--config")
    config = finder.parse_known_args(argv)[0].config
    recorded = []
    if config is not None:
        given = {word.partition("=")[0] for word in argv}
        recorded = recorded_words(parser, paths.path_of(config), script=script, given=given)
    args = parser.parse_args([*recorded, *argv])
    del args.config
    return args


def recorded_words(
    parser: ArgumentParser, path: Path, *, script: str, given: Collection[str]
) -> list[str]:
    """The options of a recorded run as words of a command line, without those that are `given`.

    path: X.json. Raises InputError for a file that is no record of the script, and naming the file
    for an option that the script does not have and for a value that it refuses.
    """
    actions = {action.dest: action for action in parser._actions}
    words = []
    for name, value in recorded_options(path, script).items():
        option, action = f"--{name}", actions.get(name)
        if name in NOT_TAKEN:
            continue
        if action is None or name in ("help", "config"):
            raise InputError(f"{path}: {script} has no option {option}")
        # The number of steps would win over that of epochs.
        if option in given or (name == "max_steps" and "--max_epoch" in given):
            continue
        if value is action.default and value in (None, False):
            continue
        if action.nargs == 0 and value is True:
            words.append(option)
        elif action.nargs != 0 and isinstance(value, str | int | float) and value is not True:
            words.append(f"{option}={value}")
        else:
            raise InputError(f"{path}: {option} cannot be {json.dumps(value)}")

    required = [action for action in parser._actions if action.required]
    try:
        for action in required:
            action.required = False
        parser.parse_args(words)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    finally:
        for action in required:
            action.required = True
    return words


def recorded_options(path: Path, script: str) -> dict[str, Any]:
    """The options in X.json, by name. Raises InputError unless it is a record of the script."""
    advice = f"give the X.json that {script} wrote beside X.pth"
    if not path.is_file():
        raise InputError(f"--config: there is no file {path}; {advice}")
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        writer, options = record["script"], dict(record["args"])
    except OSError as error:
        raise InputError(f"--config: cannot read {path}: {error.strerror}; {advice}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"--config: {path} is no record of a training run; {advice}") from error
    if writer != script:
        raise InputError(f"--config: {path} is a record of {writer}; {advice}")
    return options


def add_subset(task: Add) -> None:
    """Add the options that train on a part of the data set."""
    task(
        "--max_samples",
        type=integer(1),
        help="training images, drawn evenly from the classes by --seed (default: all)",
    )
    task("--max_classes", type=integer(2), help="use the first so many classes (default: all)")


def add_run_arguments(optimisation: Add, machine: Add, output: Add) -> None:
    """Add to each group the options whose defaults are the same in both scripts."""
    add_optimisation(optimisation)
    add_device(machine)
    machine(
        "--amp",
        choices=("auto", "off", "bf16", "fp16"),
        default="auto",
        help="mixed precision; auto: off on a CPU, bf16 on GPUs that have it, else fp16",
    )
    add_switch(machine, "compile", help="compile the network (default: off)")
    add_switch(
        machine, "deterministic", help="only deterministic algorithms of PyTorch (default: off)"
    )
    add_workers(machine)
    add_output(output)


def add_switch(add: Add, name: str, *, help: str) -> None:
    """Add --NAME, and --no_NAME, which switches off what --config would take from a record."""
    add(f"--no_{name}", dest=name, action="store_false", default=False, help=argparse.SUPPRESS)
    add(f"--{name}", action="store_true", help=help)


def add_optimisation(add: Add) -> None:
    """Add the options of the optimiser steps: their number, parts, rule and seed."""
    add(
        "--max_steps",
        type=integer(1),
        help="optimiser steps, instead of --max_epoch (default: off)",
    )
    add(
        "--accumulate",
        type=integer(1),
        default=1,
        help="parts that a batch is computed in, each of at least two images",
    )
    add_switch(
        add,
        "drop_last",
        help="leave out a last batch that is smaller than the others (default: off)",
    )
    add("--optimizer", choices=OPTIMIZERS, default="sgd", help="sgd has momentum 0.9")
    add("--warmup_epochs", type=integer(0), default=0, help="epochs of linear warm-up")
    add("--seed", type=integer(0), default=0, help="of initialisation, sample order, augmentation")


def add_output(add: Add) -> None:
    """Add the options of files, console lines and resuming."""
    add(
        "--keep",
        choices=("best", "last", "both"),
        default="best",
        help="epoch that is written: best validation accuracy, last, or both (X.pth, X_last.pth)",
    )
    add("--val_interval", type=integer(1), default=1, help="epochs from validation to validation")
    add("--log_interval", type=integer(1), help="iterations from line to line (default: off)")
    add(
        "--config",
        metavar="X.json",
        help="options of that run where they are not given here, without the files -r, -a and -b; "
        "--no_drop_last and the like switch one off; a bare name: in ckpt/ (default: off)",
    )
    add("--resume", action="store_true", help="go on from X.resume, if there is one (default: off)")
    add(
        "--overwrite",
        action="store_true",
        help="begin anew although there is an X.resume (default: off)",
    )
    add("--save_minutes", type=number(0), default=10, help="minutes from one X.resume to the next")


def add_evaluation_arguments(parser: ArgumentParser) -> None:
    """Add the options of commands that only evaluate a network."""
    add = parser.add_argument
    add("--batch_size", type=integer(1), default=256, help="images a batch")
    add_workers(add)
    add_device(add)


def add_workers(add: Add) -> None:
    """Add --num_workers."""
    workers = min(8, usable_cores())
    add("--num_workers", type=integer(0), default=workers, help="processes that load images")


def add_device(add: Add) -> None:
    """Add --device."""
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: a GPU if there is one")
