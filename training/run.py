"""A training run: its set-up from the command line, how far it is, and what it saves."""

import argparse
import time
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from console import Interrupted, say, warn
from datasets.images import Images
from datasets.loader import Loader, make_loader

from . import distributed
from .device import choose_precision
from .record import Measure, Record, device_name, warn_of_other_images
from .resume import MAY_CHANGE, ResumeFile
from .schedule import Schedule, make_optimizer
from .tally import Tally

# Counters of a run that X.resume holds.
COUNTERS = ("epoch", "batches", "step", "sum_lr", "lr", "seconds", "unreadable")


def make_loaders(
    args: argparse.Namespace, train_set: Images, val_set: Images, device: torch.device
) -> tuple[Loader, Loader]:
    """The loaders of both splits, as the command line says."""
    options = {
        "batch_size": args.batch_size,
        "seed": args.seed,
        "num_workers": args.num_workers,
        "device": device,
        "rank": distributed.rank(),
        "world_size": distributed.world_size(),
    }
    train_loader = make_loader(train_set, train=True, drop_last=args.drop_last, **options)
    return train_loader, make_loader(val_set, train=False, **options)


def set_up(
    args: argparse.Namespace,
    model: nn.Module,
    train_loader: Loader,
    *,
    path: Path,
    device: torch.device,
    facts: Mapping[str, Any],
    measure: Measure | None = None,
    sha256_r: str | None = None,
) -> "Run":
    """The run that the command line describes, with `model` on its device.

    path: the checkpoint X.pth to write, claimed by the caller. facts: script, parent_sha256 and
    those of the data. measure: T after every epoch; sha256_r: of the theta_r that it is measured
    from. A state that --overwrite gives up is deleted.
    """
    facts = {
        **facts,
        "args": vars(args),
        "arch": args.arch,
        "seed": args.seed,
        "device": device_name(device),
        "processes": distributed.world_size(),
        "last_batch": train_loader.last_batch,
    }
    say(
        f"{args.arch} on {facts['device']}: {facts['train_images']} training and "
        f"{facts['val_images']} validation images of {len(facts['classes'])} classes, "
        f"{len(train_loader)} steps an epoch"
    )
    warn_of_short_batch(train_loader.last_batch, args.batch_size)
    # Before the optimiser, whose fused form depends on the device.
    model.to(device, memory_format=torch.channels_last)
    config = same_when_resumed(args, facts, sha256_r)
    file = ResumeFile(path, config=config, save_minutes=args.save_minutes)
    if not goes_on(args):
        file.remove()
    return Run(
        model=model,
        optimizer=make_optimizer(args.optimizer, model, lr=args.lr, weight_decay=args.weight_decay),
        schedule=schedule_of(args, steps_per_epoch=len(train_loader)),
        record=Record(path, keep=args.keep, facts=facts, measure=measure if file.writes else None),
        file=file,
        device=device,
        seed=args.seed,
        precision=choose_precision(args.amp, device),
        accumulate=args.accumulate,
        compiled=args.compile,
    )


def goes_on(args: argparse.Namespace) -> bool:
    """Whether a state that is there is taken up: --overwrite wins over --resume."""
    return args.resume and not args.overwrite


def warn_of_short_batch(last_batch: int, batch_size: int) -> None:
    """Warn where the last batch of every epoch is under half of the others."""
    if 2 * last_batch < batch_size:
        warn(
            f"the last batch of every epoch has {last_batch} of {batch_size} images, moves the "
            "parameters like a full one, or further, and so lowers T; --drop_last leaves it out"
        )


def schedule_of(args: argparse.Namespace, *, steps_per_epoch: int) -> Schedule:
    """The steps and learning rates that the command line says."""
    return Schedule(
        scheduler=args.scheduler,
        lr=args.lr,
        max_epoch=args.max_epoch,
        steps_per_epoch=steps_per_epoch,
        max_steps=args.max_steps,
        warmup_epochs=args.warmup_epochs,
    )


def same_when_resumed(
    args: argparse.Namespace, facts: Mapping[str, Any], sha256_r: str | None
) -> dict[str, Any]:
    """The settings that must be the same when the run goes on."""
    config = {key: value for key, value in vars(args).items() if key not in MAY_CHANGE}
    for key in ("script", "classes", "train_images", "val_images", "parent_sha256"):
        config[key] = facts[key]
    return {**config, "processes": distributed.world_size(), "theta_r": sha256_r}


@dataclass(kw_only=True)
class Run:
    """What is trained, how its steps are made, how far it is, and the files that it leaves.

    From the content of `state` it goes on bit for bit. Of several processes the first one writes.
    """

    model: nn.Module  # on `device`
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    record: Record  # X.pth, X.csv, X.json
    file: ResumeFile  # X.resume
    device: torch.device
    seed: int = 0
    precision: torch.dtype | None = None  # of the autocast regions; None: none
    accumulate: int = 1  # parts that the batch of a step is computed in
    compiled: InitVar[bool] = False

    epoch: int = 0  # under way, from 0
    batches: int = 0  # done in this epoch
    step: int = 0  # optimiser steps done
    lr: float = 0.0  # of the last step
    sum_lr: float = 0.0  # of all steps
    seconds: float = 0.0  # spent on this epoch before an interruption
    unreadable: list[str] = field(default_factory=list)  # paths of images
    loaders: tuple[Loader, ...] = ()  # that report them

    def __post_init__(self, compiled: bool) -> None:
        # What is called in a step: `model`, compiled or wrapped for several processes.
        network = torch.compile(self.model) if compiled else self.model
        self.network = distributed.wrap(network, self.device)
        # Scales the loss in fp16, and does nothing otherwise.
        fp16 = self.precision is torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        self.tally = Tally(self.device)
        self.started = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the last optimiser step has been made."""
        return self.step == self.schedule.steps

    @property
    def epoch_seconds(self) -> float:
        """Time spent on this epoch, before an interruption and since."""
        return self.seconds + time.monotonic() - self.started

    def start_epoch(self) -> None:
        """Start the clock and the dropout masks of an epoch, or of the rest of it."""
        self.started = time.monotonic()
        # X.resume has the generator of the first process alone.
        if self.batches == 0 or distributed.rank() > 0:
            seed_dropout(self.seed, self.epoch, self.batches)

    def set_learning_rate(self) -> None:
        """Tell the optimiser the learning rate of the coming step."""
        self.lr = self.schedule.learning_rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr

    def end_step(self, counted: Tally) -> None:
        """Count an optimiser step."""
        self.tally.include(counted)
        self.batches += 1
        self.step += 1
        self.sum_lr += self.lr

    def training_row(self) -> dict[str, Any]:
        """The record's row of an epoch whose validation is still to come."""
        train_loss, train_acc = self.tally.read(self.epoch)
        return {
            "epoch": self.epoch + 1,
            "step": self.step,
            "lr": self.lr,
            "sum_lr": self.sum_lr,
            "train_loss": train_loss,
            "train_acc": train_acc,
            "val_loss": None,
            "val_acc": None,
            "images_per_s": round(self.tally.images.item() / self.epoch_seconds, 1),
            "seconds": None,
        }

    def end_epoch(self, row: dict[str, Any]) -> None:
        """Save the end of an epoch: first the state, then the files of the record."""
        row["seconds"] = round(self.epoch_seconds, 2)
        self.record.add(row)
        self.note_unreadable()
        self.unreadable = distributed.union(self.unreadable)
        self.next_epoch()
        if self.file.writes:
            self.file.save(self.state())
            self.write_outputs()

    def next_epoch(self) -> None:
        """Set the counters to the beginning of the next epoch."""
        self.epoch, self.batches, self.seconds = self.epoch + 1, 0, 0.0
        self.tally = Tally(self.device)

    def write_outputs(self) -> None:
        """Bring X.pth, X.csv and X.json up to date with the record."""
        parameters, unreadable = self.model.state_dict(), len(self.unreadable)
        self.record.write(parameters, unreadable=unreadable, last=self.is_over)

    def note_unreadable(self) -> None:
        """Add the loaders' unreadable images to those from before an interruption."""
        paths = {path for loader in self.loaders for path in loader.unreadable}
        self.unreadable = sorted(paths.union(self.unreadable))

    def save_if_due(self) -> None:
        """Save in mid-epoch if it is time or a signal has come; then raises Interrupted."""
        if not self.file.is_due():
            return
        self.tally.read(self.epoch)  # a loss that is not finite must not get into the file
        self.note_unreadable()
        self.seconds, self.started = self.epoch_seconds, time.monotonic()
        self.file.save(self.state())
        if self.file.stop_signal is not None:
            raise Interrupted(
                f"interrupted in epoch {self.epoch + 1}, after iteration {self.batches}; the same "
                "command with --resume goes on from there",
                self.file.stop_signal,
            )

    def state(self) -> dict[str, Any]:
        """Content of X.resume, in types that torch.load reads without running code."""
        cuda = self.device.type == "cuda"
        return {
            "counters": {key: getattr(self, key) for key in COUNTERS},
            "tally": self.tally.state(),
            "record": self.record.state(),
            "images": self.record.facts.get("images"),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def resume(self) -> None:
        """Go on from X.resume, if there is one. Raises InputError as `load` and `restore` do."""
        state = self.file.load()
        distributed.wait_for_all()  # else the first process may save while others still load
        if state is None:
            return
        self.restore(state)
        say(f"resuming in epoch {self.epoch + 1}, after iteration {self.batches}")
        # The run may have been killed between the state of an epoch and its outputs.
        if self.file.writes and self.record.rows and self.batches == 0:
            self.write_outputs()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over `state`. Raises InputError where a checkpoint kept before has changed."""
        # Missing in the state of an older version.
        warn_of_other_images(self.record.path, state.get("images"), self.record.facts.get("images"))
        for key, value in state["counters"].items():
            setattr(self, key, value)
        self.tally.restore(state["tally"])
        self.record.restore(state["record"], at_epoch_end=self.batches == 0)
        self.model.load_state_dict(state["model"])
        groups = zip(state["optimizer"]["param_groups"], self.optimizer.param_groups, strict=True)
        for saved, own in groups:
            saved["fused"] = own["fused"]  # of this device, which may be another one
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled() and state["scaler"]:  # {}: of one that was not enabled
            self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.device)


def seed_dropout(seed: int, epoch: int, batches: int) -> None:
    """Seed the global generator, from which dropout draws and nothing else.

    batches: done in this epoch. Each process needs masks of its own.
    """
    key = (seed, epoch, distributed.rank(), *([batches] if batches else []))
    torch.manual_seed(hash(key) % 2**63)
