"""The training loop of both scripts: one step, one epoch, one evaluation, and `fit`, their sum."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from console import Interrupted, say

from . import distributed
from .device import mixed_precision
from .progress import ProgressBar
from .record import Record
from .runstate import RunState
from .tally import Tally


class Loader(Protocol):
    """What the loop needs of a loader; see `datasets.loader.Loader`."""

    unreadable: list[str]

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None: ...

    def weight(self, batch: int) -> float: ...


class Run:
    """Where a run is, and everything that it needs to go on from there bit for bit."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        record: Record,
        device: torch.device,
    ) -> None:
        self.model, self.optimizer, self.scaler = model, optimizer, scaler
        self.record, self.device = record, device
        self.epoch = 0  # under way, from 0
        self.batches = 0  # done in this epoch
        self.step = 0
        self.sum_lr = 0.0
        self.lr = 0.0
        self.seconds = 0.0  # spent on this epoch before an interruption
        self.unreadable: list[str] = []  # paths of images so far
        self.tally = Tally(device)

    def start_epoch(self, epoch: int) -> None:
        """Set the counters of the epoch to 0."""
        self.epoch, self.batches, self.seconds = epoch, 0, 0.0
        self.tally = Tally(self.device)

    def state(self) -> dict[str, Any]:
        """Content of X.resume, in types that torch.load reads without running code."""
        keys = ("epoch", "batches", "step", "sum_lr", "lr", "seconds", "unreadable")
        cuda = self.device.type == "cuda"
        return {
            "counters": {key: getattr(self, key) for key in keys},
            "tally": self.tally.state(),
            "record": self.record.state(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Raises InputError where a checkpoint kept before has changed."""
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


class Saver:
    """Brings to disk what a run leaves: its state within an epoch and after it, and the outputs.

    Of several processes the first one writes. loaders: whose unreadable images are noted.
    """

    def __init__(self, run: Run, state: RunState, loaders: tuple[Loader, ...]) -> None:
        self.run, self.state, self.loaders = run, state, loaders
        self.writes = distributed.rank() == 0
        self.start = time.monotonic()  # of what `run.seconds` does not hold

    @property
    def seconds(self) -> float:
        """Spent on this epoch, before an interruption and after it."""
        return self.run.seconds + time.monotonic() - self.start

    def note_unreadable(self) -> None:
        """Put the loaders' unreadable images to those from before an interruption."""
        found = {path for loader in self.loaders for path in loader.unreadable}
        self.run.unreadable = sorted(found.union(self.run.unreadable))

    def save_if_due(self) -> None:
        """Save in mid-epoch, if it is time or a signal has come; raises Interrupted after that."""
        if not self.state.is_due():
            return
        run = self.run
        run.tally.read(run.epoch)  # a loss that is not finite must not get into the file
        self.note_unreadable()
        run.seconds, self.start = self.seconds, time.monotonic()
        self.state.save(run.state())
        if self.state.stop_signal is not None:
            raise Interrupted(
                f"interrupted in epoch {run.epoch + 1}, after iteration {run.batches}; the same "
                "command with --resume goes on from there",
                self.state.stop_signal,
            )

    def end_epoch(self, row: dict[str, Any], *, last: bool) -> None:
        """Note and save the end of an epoch; row: of the record. last: the run ends here."""
        self.run.record.add(row)
        self.note_unreadable()
        self.run.unreadable = distributed.union(self.run.unreadable)
        self.run.start_epoch(self.run.epoch + 1)
        if self.writes:
            self.state.save(self.run.state())
        self.write_outputs(last=last)

    def write_outputs(self, *, last: bool) -> None:
        """Bring the files of the record up to date."""
        if self.writes:
            parameters, unreadable = self.run.model.state_dict(), len(self.run.unreadable)
            self.run.record.write(parameters, unreadable=unreadable, last=last)

    def resume(self, total_steps: int) -> None:
        """Go on from the saved state, if there is one."""
        run, state = self.run, self.state.load()
        distributed.wait_for_all()  # else the first process may save while others still load
        if state is None:
            return
        run.restore(state)
        say(f"resuming in epoch {run.epoch + 1}, after iteration {run.batches}")
        if run.record.rows and run.batches == 0:
            self.write_outputs(last=run.step == total_steps)


def train_step(
    model: nn.Module,
    run: Run,
    images: Tensor,
    labels: Tensor,
    *,
    precision: torch.dtype | None,
    accumulate: int,
    weight: float,
) -> Tally:
    """Change the parameters by one step; return what was counted. weight: see Loader.weight."""
    run.optimizer.zero_grad(set_to_none=True)
    # BatchNorm cannot train on a part of one image.
    number = min(accumulate, max(1, len(labels) // 2))
    parts = zip(images.tensor_split(number), labels.tensor_split(number), strict=True)
    counted = Tally(run.device)
    for i, (part, part_labels) in enumerate(parts, start=1):
        with synchronised(model, i == number):
            with mixed_precision(run.device, precision):
                logits = model(part)
                loss = F.cross_entropy(logits, part_labels)
            share = weight * len(part_labels) / len(labels)
            run.scaler.scale(loss * share).backward()
        counted.add(loss, logits, part_labels)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return counted


def synchronised(model: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """Several processes exchange gradients with the last part of a batch only."""
    wrapped = isinstance(model, nn.parallel.DistributedDataParallel)
    return model.no_sync() if wrapped and not last else contextlib.nullcontext()


def train_one_epoch(
    model: nn.Module,
    loader: Loader,
    run: Run,
    *,
    learning_rate: Callable[[int], float],
    precision: torch.dtype | None,
    last_step: int,
    accumulate: int,
    log_interval: int | None,
    after_step: Callable[[], None],
) -> None:
    """Train until the loader or the steps (up to `last_step`) are used up, from where `run` is.

    model: `run.model`, or that wrapped for several processes. after_step: called when a step is
    complete and counted.
    """
    model.train()
    bar = ProgressBar(loader, f"epoch {run.epoch + 1}", run.batches, last_step - run.step)
    for images, labels in bar:
        run.lr = learning_rate(run.step)
        for group in run.optimizer.param_groups:
            group["lr"] = run.lr
        weight = loader.weight(run.batches)
        options = {"precision": precision, "accumulate": accumulate, "weight": weight}
        run.tally.include(train_step(model, run, images, labels, **options))
        run.batches += 1
        run.step += 1
        run.sum_lr += run.lr

        if log_interval and run.batches % log_interval == 0:
            with bar.external_write_mode(file=sys.stdout):
                say(iteration_line(run, bar.total))
        elif bar.is_due():
            bar.set_postfix_str(f"loss {run.tally.read(run.epoch)[0]:.4f}", refresh=False)
        after_step()
        if run.step == last_step:
            break
    bar.close()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Loader,
    *,
    precision: torch.dtype | None,
    device: torch.device,
    epoch: int,
    after_batch: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Mean cross-entropy, and accuracy in per cent, over all images of all processes."""
    model.eval()
    tally = Tally(device)
    for images, labels in ProgressBar(loader, f"epoch {epoch + 1}, validation", 0, len(loader)):
        with mixed_precision(device, precision):
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        tally.add(loss, logits, labels)
        tally.iterations += 1
        after_batch()
    return tally.read(epoch, all_processes=True)


def fit(
    model: nn.Module,
    train_loader: Loader,
    val_loader: Loader,
    *,
    epochs: int,
    max_steps: int | None,
    optimizer: torch.optim.Optimizer,
    learning_rate: Callable[[int], float],
    precision: torch.dtype | None,
    accumulate: int,
    compiled: bool,
    device: torch.device,
    seed: int,
    val_interval: int,
    log_interval: int | None,
    record: Record,
    state: RunState,
    resume: bool,
) -> None:
    """Train `model` (on `device`), and hand every epoch to `record`.

    Loaders are those of `datasets.loader`. learning_rate: step -> rate. max_steps: exact number of
    optimiser steps, over as many epochs as it takes. precision: type of the autocast regions, None
    for none. accumulate: parts that the batch of a step is computed in. resume: go on from the file
    of `state` if there is one. Raises InputError when the loss is no longer finite, and Interrupted
    after a signal, the state saved.
    """
    steps = max_steps or epochs * len(train_loader)
    epochs = -(-steps // len(train_loader))
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
    run = Run(model, optimizer, scaler, record, device)
    saver = Saver(run, state, (train_loader, val_loader))
    network = distributed.wrap(torch.compile(model) if compiled else model, device)
    options = {"learning_rate": learning_rate, "precision": precision, "accumulate": accumulate}
    options |= {"last_step": steps, "log_interval": log_interval, "after_step": saver.save_if_due}
    train = partial(train_one_epoch, network, train_loader, run, **options)
    options = {"precision": precision, "device": device, "after_batch": saver.save_if_due}
    validate = partial(evaluate, network, val_loader, **options)

    if resume:
        saver.resume(steps)
    for epoch in range(run.epoch, epochs):
        if run.batches == 0 or distributed.rank() > 0:
            seed_dropout(seed, epoch, run.batches)
        train_loader.set_epoch(epoch, first_batch=run.batches)
        row = run_epoch(saver, train, validate, val_interval=val_interval, last_step=steps)
        saver.end_epoch(row, last=run.step == steps)
        say(epoch_line(row, epochs))
    if saver.writes:
        state.remove()


def run_epoch(
    saver: Saver,
    train: Callable[[], None],
    validate: Callable[..., tuple[float, float]],
    *,
    val_interval: int,
    last_step: int,
) -> dict[str, Any]:
    """Train and validate for an epoch, or what an interruption has left of it; return its row."""
    run = saver.run
    saver.start = time.monotonic()
    if run.batches < len(saver.loaders[0]) and run.step < last_step:
        train()
    train_loss, train_acc = run.tally.read(run.epoch)
    images_per_s = run.tally.images.item() / saver.seconds
    val_loss = val_acc = None
    if run.step == last_step or (run.epoch + 1) % val_interval == 0:
        distributed.share_buffers(run.model)
        val_loss, val_acc = validate(epoch=run.epoch)
    return {
        "epoch": run.epoch + 1,
        "step": run.step,
        "lr": run.lr,
        "sum_lr": run.sum_lr,
        "train_loss": train_loss,
        "train_acc": train_acc,
        "val_loss": val_loss,
        "val_acc": val_acc,
        "images_per_s": round(images_per_s, 1),
        "seconds": round(saver.seconds, 2),
    }


def seed_dropout(seed: int, epoch: int, batches: int) -> None:
    """Seed the global generator, from which dropout draws and nothing else.

    batches: done in this epoch; the state that a run goes on from has only the first process's
    generator, and the others need masks of their own.
    """
    place = (seed, epoch, distributed.rank(), *([batches] if batches else []))
    torch.manual_seed(hash(place) % 2**63)


def iteration_line(run: Run, iterations: int) -> str:
    """Where an epoch of so many iterations is, for the console."""
    loss, accuracy = run.tally.read(run.epoch)
    return (
        f"epoch {run.epoch + 1}, iteration {run.batches}/{iterations}: lr {run.lr:.6f}, "
        f"train loss {loss:.4f}, accuracy {accuracy:.2f} %"
    )


def epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    """One aligned line for the console."""
    line = (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  step {row['step']}  lr {row['lr']:.6f}"
        f"  train loss {row['train_loss']:.4f} acc {row['train_acc']:6.2f} %"
    )
    if row["val_acc"] is not None:
        line += f"  val loss {row['val_loss']:.4f} acc {row['val_acc']:6.2f} %"
    return f"{line}  {row['images_per_s']:.0f} images/s  {row['seconds']:.1f} s"
