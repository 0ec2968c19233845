"""Command-line options that the training scripts share."""

import argparse
from collections.abc import Callable

from console import ArgumentParser, integer, number
from datasets.workers import usable_cores

from .schedule import OPTIMIZERS

Add = Callable[..., argparse.Action]


def argument_groups(parser: ArgumentParser) -> tuple[Add, Add, Add, Add]:
    """`add_argument` of the groups that --help shows: task, optimisation, machine, output."""
    names = ("task", "optimisation", "machine", "output")
    return tuple(parser.add_argument_group(name).add_argument for name in names)


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
    machine("--compile", action="store_true", help="compile the network (default: off)")
    machine(
        "--deterministic",
        action="store_true",
        help="only deterministic algorithms of PyTorch (default: off)",
    )
    add_workers(machine)
    add_output(output)


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
    add(
        "--drop_last",
        action="store_true",
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
