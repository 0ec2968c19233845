"""Options that both training scripts have, and what the words in them mean on this machine."""

import argparse
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from safe_io import ArgumentParser, InputError, integer

from .engine import fit
from .runstate import Record, device_name
from .schedule import OPTIMIZERS, learning_rate, make_optimizer


def add_run_arguments(parser: ArgumentParser) -> None:
    """Add the options whose defaults are the same in both scripts."""
    add = parser.add_argument
    add("--seed", type=integer(0), default=0, help="of initialisation, sample order, augmentation")
    add("--optimizer", choices=OPTIMIZERS, default="sgd", help="sgd has momentum 0.9")
    add("--warmup_epochs", type=integer(0), default=0, help="epochs of linear warm-up")
    add("--max_steps", type=integer(1), help="optimiser steps; overrides --max_epoch")
    add(
        "--keep",
        choices=("best", "last", "both"),
        default="best",
        help="epoch whose parameters are written: best validation accuracy, the last, or both "
        "(X.pth and X_last.pth)",
    )
    add("--val_interval", type=integer(1), default=1, help="epochs from validation to validation")
    add("--log_interval", type=integer(1), help="print a line every so many iterations")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ...; auto: a GPU if there is one")
    add(
        "--amp",
        choices=("auto", "off", "bf16", "fp16"),
        default="auto",
        help="mixed precision; auto: off on a CPU, bf16 on GPUs that have it, else fp16",
    )
    add(
        "--num_workers",
        type=integer(0),
        default=min(8, len(os.sched_getaffinity(0))),
        help="processes that load images; 0: none beside the main one",
    )


def choose_device(name: str) -> torch.device:
    """The device for `--device`. Raises InputError for one that is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here: {reason}") from error
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Type of the autocast regions for `--amp`; None: no mixed precision."""
    if name == "auto" and device.type != "cuda":
        name = "off"
    if name == "auto":
        name = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def fit_with_arguments(
    args: argparse.Namespace,
    model: nn.Module,
    train_loader: Any,
    val_loader: Any,
    *,
    path: Path,
    device: torch.device,
    facts: Mapping[str, Any],
) -> list[Path]:
    """Train `model` as the command line says; return the checkpoints written.

    path: the checkpoint X.pth to write. facts: what X.json records of this script's own (see
    Record).
    """
    model.to(device, memory_format=torch.channels_last)
    record = Record(
        path,
        keep=args.keep,
        facts={
            **facts,
            "args": vars(args),
            "arch": args.arch,
            "train_images": train_loader.num_images,
            "val_images": val_loader.num_images,
            "seed": args.seed,
            "device": device_name(device),
        },
    )
    fit(
        model,
        train_loader,
        val_loader,
        epochs=args.max_epoch,
        max_steps=args.max_steps,
        optimizer=make_optimizer(args.optimizer, model, lr=args.lr, weight_decay=args.weight_decay),
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
        device=device,
        seed=args.seed,
        val_interval=args.val_interval,
        log_interval=args.log_interval,
        record=record,
    )
    return list(record.kept)
