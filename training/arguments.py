"""Options that both training scripts have, and what the words in them mean on this machine."""

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datasets.workers import usable_cores
from safe_io import ArgumentParser, InputError, integer, number

from . import distributed
from .engine import fit
from .record import Record, device_name, outputs
from .runstate import MAY_CHANGE, RunState, stoppable
from .schedule import OPTIMIZERS, learning_rate, make_optimizer


def add_run_arguments(parser: ArgumentParser) -> None:
    """Add the options whose defaults are the same in both scripts."""
    add = parser.add_argument_group("training").add_argument
    add("--seed", type=integer(0), default=0, help="of initialisation, sample order, augmentation")
    add("--optimizer", choices=OPTIMIZERS, default="sgd", help="sgd has momentum 0.9")
    add("--warmup_epochs", type=integer(0), default=0, help="epochs of linear warm-up")
    add("--max_steps", type=integer(1), help="optimiser steps; overrides --max_epoch")
    add("--accumulate", type=integer(1), default=1, help="parts that a batch is computed in")
    add(
        "--keep",
        choices=("best", "last", "both"),
        default="best",
        help="epoch that is written: best validation accuracy, last, or both (X.pth, X_last.pth)",
    )
    add("--val_interval", type=integer(1), default=1, help="epochs from validation to validation")

    add = parser.add_argument_group("machine").add_argument
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: a GPU if there is one")
    add(
        "--amp",
        choices=("auto", "off", "bf16", "fp16"),
        default="auto",
        help="mixed precision; auto: off on a CPU, bf16 on GPUs that have it, else fp16",
    )
    workers = min(8, usable_cores())
    add("--num_workers", type=integer(0), default=workers, help="processes that load images")
    add("--compile", action="store_true", help="compile the network (torch.compile)")
    add("--deterministic", action="store_true", help="only deterministic algorithms of PyTorch")
    add("--log_interval", type=integer(1), help="print a line every so many iterations")

    add = parser.add_argument_group("interruptions").add_argument
    add("--resume", action="store_true", help="go on from X.resume, if there is one")
    add("--overwrite", action="store_true", help="begin anew although there is an X.resume")
    add("--save_minutes", type=number(0), default=10, help="minutes from one X.resume to the next")


def choose_device(name: str, *, deterministic: bool = False) -> torch.device:
    """The device for `--device`, its settings made. Raises InputError for one that is not here.

    Under torchrun it is the GPU of this process, and the process group is joined.
    """
    if deterministic:
        # cuBLAS reads it when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here: {reason}") from error
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = not deterministic
    distributed.start(device)
    return device


@contextlib.contextmanager
def one_line_when_out_of_memory() -> Iterator[None]:
    """Turn the exception of a GPU that has not enough memory into InputError."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            "the GPU has not enough memory for a batch; compute it in parts with --accumulate 2 "
            "(or more), or give a smaller --batch_size"
        ) from error


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Type of the autocast regions for `--amp`; None: no mixed precision."""
    if name == "auto" and device.type != "cuda":
        name = "off"
    if name == "auto":
        name = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def refuse_overwriting(inputs: Mapping[str, Path | None], path: Path, *, keep: str) -> None:
    """Raise InputError where a run that writes `path` would write over a file it is given.

    inputs: option -> file. keep: with "both", X_last.pth is written, too.
    """
    for output in outputs(path, keep).values():
        for option, file in inputs.items():
            if file is not None and output.resolve() == file.resolve():
                raise InputError(
                    f"the run would write {output}, which is given as {option}; give another name"
                )


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
    train_loader: Any,
    val_loader: Any,
    *,
    path: Path,
    device: torch.device,
    facts: Mapping[str, Any],
    measure: Callable[[], tuple[float | None, list[dict[str, Any]]]] | None = None,
    theta_r: str | None = None,
) -> list[Path]:
    """Train `model` as the command line says; return the checkpoints written.

    path: the checkpoint X.pth to write, locked by the caller. facts: what X.json records of this
    script's own. measure: its transferability after every epoch (see Record), theta_r: SHA-256 of
    the file that it is measured from.
    """
    model.to(device, memory_format=torch.channels_last)
    facts = {
        **facts,
        "args": vars(args),
        "arch": args.arch,
        "train_images": train_loader.num_images,
        "val_images": val_loader.num_images,
        "seed": args.seed,
        "device": device_name(device),
    }
    same = ("script", "classes", "train_images", "val_images", "parent_sha256")
    config = {key: value for key, value in vars(args).items() if key not in MAY_CHANGE}
    config |= {key: facts[key] for key in same}
    config |= {"processes": distributed.world_size(), "theta_r": theta_r}
    # Only the first process writes.
    measure = measure if distributed.rank() == 0 else None
    record = Record(path, keep=args.keep, facts=facts, measure=measure)
    state = RunState(path, config=config, save_minutes=args.save_minutes)
    with stoppable(state), one_line_when_out_of_memory():
        fit(
            model,
            train_loader,
            val_loader,
            epochs=args.max_epoch,
            max_steps=args.max_steps,
            optimizer=make_optimizer(
                args.optimizer, model, lr=args.lr, weight_decay=args.weight_decay
            ),
            learning_rate=partial(
                learning_rate,
                lr=args.lr,
                scheduler=args.scheduler,
                epochs=args.max_epoch,
                steps_per_epoch=len(train_loader),
                max_steps=args.max_steps,
                warmup_epochs=args.warmup_epochs,
            ),
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
