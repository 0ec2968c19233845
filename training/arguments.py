"""Options that both training scripts have, and how a run follows from them."""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from console import ArgumentParser, integer, number, say
from datasets.loader import Loader
from datasets.workers import usable_cores

from . import distributed
from .device import (
    choose_precision,
    one_line_when_not_compiled,
    one_line_when_not_deterministic,
    one_line_when_out_of_memory,
)
from .engine import fit
from .record import Measure, Record, device_name
from .runstate import MAY_CHANGE, RunState, stoppable
from .schedule import OPTIMIZERS, learning_rate, make_optimizer

Add = Callable[..., argparse.Action]


def argument_groups(parser: ArgumentParser) -> tuple[Add, Add, Add, Add]:
    """`add_argument` of the groups that --help shows: task, optimisation, machine, output."""
    names = ("task", "optimisation", "machine", "output")
    return tuple(parser.add_argument_group(name).add_argument for name in names)


def add_run_arguments(optimisation: Add, machine: Add, output: Add) -> None:
    """Add the options whose defaults are the same in both scripts to their groups."""
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
    """Add how the steps are made and how many."""
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
    add("--optimizer", choices=OPTIMIZERS, default="sgd", help="sgd has momentum 0.9")
    add("--warmup_epochs", type=integer(0), default=0, help="epochs of linear warm-up")
    add("--seed", type=integer(0), default=0, help="of initialisation, sample order, augmentation")


def add_output(add: Add) -> None:
    """Add what is written, printed and gone on from."""
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


def loading_options(args: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """What the loaders of both splits have in common."""
    return {
        "batch_size": args.batch_size,
        "seed": args.seed,
        "num_workers": args.num_workers,
        "device": device,
        "rank": distributed.rank(),
        "world_size": distributed.world_size(),
    }


def fit_with_arguments(
    args: argparse.Namespace,
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    *,
    path: Path,
    device: torch.device,
    facts: Mapping[str, Any],
    measure: Measure | None = None,
    theta_r: str | None = None,
) -> list[Path]:
    """Train `model` as the command line says; return the checkpoints written.

    path: the checkpoint X.pth to write, locked by the caller. facts: what X.json records of this
    script's own. measure: its transferability after every epoch, theta_r: SHA-256 of the file that
    it is measured from.
    """
    facts = {
        **facts,
        "args": vars(args),
        "arch": args.arch,
        "train_images": train_loader.num_images,
        "val_images": val_loader.num_images,
        "seed": args.seed,
        "device": device_name(device),
    }
    say(
        f"{args.arch} on {facts['device']}: {facts['train_images']} training and "
        f"{facts['val_images']} validation images of {len(facts['classes'])} classes, "
        f"{len(train_loader)} steps an epoch"
    )
    # Only the first process writes.
    measure = measure if distributed.rank() == 0 else None
    record = Record(path, keep=args.keep, facts=facts, measure=measure)
    config = same_when_resumed(args, facts, theta_r)
    state = RunState(path, config=config, save_minutes=args.save_minutes)
    advice = "compute it in parts with --accumulate 2 (or more), or give a smaller --batch_size"
    with (
        stoppable(state),
        one_line_when_not_compiled(args.compile),
        one_line_when_out_of_memory(advice),
        one_line_when_not_deterministic(),
    ):
        model.to(device, memory_format=torch.channels_last)
        fit(
            model,
            train_loader,
            val_loader,
            epochs=args.max_epoch,
            max_steps=args.max_steps,
            **optimisation_of(args, model, steps_per_epoch=len(train_loader)),
            precision=choose_precision(args.amp, device),
            accumulate=args.accumulate,
            compiled=args.compile,
            device=device,
            seed=args.seed,
            val_interval=args.val_interval,
            log_interval=args.log_interval,
            record=record,
            state=state,
            resume=args.resume,
        )
    return list(record.kept)


def same_when_resumed(
    args: argparse.Namespace, facts: Mapping[str, Any], theta_r: str | None
) -> dict[str, Any]:
    """The settings that must be the same when the run goes on (see RunState)."""
    config = {key: value for key, value in vars(args).items() if key not in MAY_CHANGE}
    for key in ("script", "classes", "train_images", "val_images", "parent_sha256"):
        config[key] = facts[key]
    return {**config, "processes": distributed.world_size(), "theta_r": theta_r}


def optimisation_of(
    args: argparse.Namespace, model: nn.Module, *, steps_per_epoch: int
) -> dict[str, Any]:
    """Optimiser and learning rate, for `fit`."""
    return {
        "optimizer": make_optimizer(
            args.optimizer, model, lr=args.lr, weight_decay=args.weight_decay
        ),
        "learning_rate": partial(
            learning_rate,
            lr=args.lr,
            scheduler=args.scheduler,
            epochs=args.max_epoch,
            steps_per_epoch=steps_per_epoch,
            max_steps=args.max_steps,
            warmup_epochs=args.warmup_epochs,
        ),
    }
