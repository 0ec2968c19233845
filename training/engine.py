"""The training loop of both scripts: one epoch, one evaluation, and `fit`, which joins them."""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from safe_io import InputError, Interrupted, say

from . import distributed
from .record import Record
from .runstate import RunState

Context = Callable[[], contextlib.AbstractContextManager]


class Tally:
    """Loss and hits, summed on the device: reading them would make the processor wait for a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.loss_sum = torch.zeros((), dtype=torch.float32, device=device)
        self.hits = torch.zeros((), dtype=torch.int64, device=device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.images = torch.zeros((), dtype=torch.int64, device=device)
        self.iterations = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add one batch, or a part of one; `loss` is its mean."""
        loss, logits = loss.detach(), logits.detach()
        self.loss_sum += loss.float() * len(labels)
        self.hits += (logits.argmax(dim=1) == labels).sum()
        self.images += len(labels)
        bad = (self.first_bad < 0) & ~torch.isfinite(loss)
        self.first_bad.masked_fill_(bad, self.iterations + 1)

    def read(self, epoch: int, *, all_processes: bool = False) -> tuple[float, float]:
        """Mean loss, and accuracy in per cent, over the images of this process or of all.

        Raises InputError with the first iteration (counted from 1) whose loss was not finite.
        """
        first_bad = self.first_bad.item()
        if first_bad >= 0:
            raise InputError(
                f"the loss is not finite since epoch {epoch + 1}, iteration {first_bad}; "
                "try a smaller --lr, --warmup_epochs 1 or --amp off"
            )
        sums = [self.loss_sum, self.hits, self.images]
        loss, hits, images = distributed.sum_up(*sums) if all_processes else sums
        count = max(images.item(), 1)
        return loss.item() / count, 100.0 * hits.item() / count

    def state(self) -> dict[str, Any]:
        """What `restore` needs, in plain types."""
        return {key: v.cpu() if isinstance(v, Tensor) else v for key, v in vars(self).items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        for key, value in state.items():
            device = self.loss_sum.device
            setattr(self, key, value.to(device) if isinstance(value, Tensor) else value)


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
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"], self.device)


def train_one_epoch(
    model: nn.Module,
    loader: Any,
    run: Run,
    *,
    learning_rate: Callable[[int], float],
    autocast: Context,
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
        weight = loader.weight(run.batches)
        run.lr = learning_rate(run.step)
        for group in run.optimizer.param_groups:
            group["lr"] = run.lr
        run.optimizer.zero_grad(set_to_none=True)
        parts = list(zip(images.chunk(accumulate), labels.chunk(accumulate), strict=True))
        for i, (part, part_labels) in enumerate(parts, start=1):
            with synchronised(model, i == len(parts)):
                with autocast():
                    logits = model(part)
                    loss = F.cross_entropy(logits, part_labels)
                share = weight * len(part_labels) / len(labels)
                run.scaler.scale(loss * share).backward()
            run.tally.add(loss, logits, part_labels)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.tally.iterations += 1
        run.batches += 1
        run.step += 1
        run.sum_lr += run.lr

        if log_interval and run.batches % log_interval == 0:
            loss_now, accuracy = run.tally.read(run.epoch)
            with bar.external_write_mode(file=sys.stdout):
                say(
                    f"epoch {run.epoch + 1}, iteration {run.batches}/{bar.total}: lr {run.lr:.6f}, "
                    f"train loss {loss_now:.4f}, accuracy {accuracy:.2f} %"
                )
        elif bar.is_due():
            bar.set_postfix_str(f"loss {run.tally.read(run.epoch)[0]:.4f}", refresh=False)
        after_step()
        if run.step == last_step:
            break
    bar.close()


def synchronised(model: nn.Module, last: bool) -> contextlib.AbstractContextManager:
    """Several processes exchange gradients with the last part of a batch only."""
    wrapped = isinstance(model, nn.parallel.DistributedDataParallel)
    return model.no_sync() if wrapped and not last else contextlib.nullcontext()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Any,
    *,
    autocast: Context,
    device: torch.device,
    epoch: int,
    after_batch: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Mean cross-entropy, and accuracy in per cent, over all images of all processes."""
    model.eval()
    tally = Tally(device)
    for images, labels in ProgressBar(loader, f"epoch {epoch + 1}, validation", 0, len(loader)):
        with autocast():
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        tally.add(loss, logits, labels)
        tally.iterations += 1
        after_batch()
    return tally.read(epoch, all_processes=True)


class ProgressBar(tqdm):
    """tqdm over a loader from batch `done` on, at most `steps` batches; silent off terminals."""

    def __init__(self, loader: Any, name: str, done: int, steps: int) -> None:
        hidden = not sys.stderr.isatty() or distributed.rank() > 0
        super().__init__(
            loader,
            desc=name,
            total=min(len(loader), done + steps),
            initial=done,
            disable=hidden,
            leave=False,
            ascii=True,
        )
        self.next_due = time.monotonic() + 2

    def is_due(self) -> bool:
        """Whether the bar is shown and two seconds have passed since it last was due."""
        if self.disable or time.monotonic() < self.next_due:
            return False
        self.next_due = time.monotonic() + 2
        return True


def fit(
    model: nn.Module,
    train_loader: Any,
    val_loader: Any,
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
    steps_per_epoch = len(train_loader)
    total_steps = max_steps or epochs * steps_per_epoch
    epochs = -(-total_steps // steps_per_epoch)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)
    run = Run(model, optimizer, scaler, record, device)
    network = distributed.wrap(torch.compile(model) if compiled else model, device)
    writes = distributed.rank() == 0
    start = time.monotonic()

    def autocast() -> contextlib.AbstractContextManager:
        return torch.autocast(device.type, dtype=precision, enabled=precision is not None)

    def note_unreadable() -> None:
        # With those from before an interruption.
        found = {*run.unreadable, *train_loader.unreadable, *val_loader.unreadable}
        run.unreadable = sorted(found)

    def write_outputs() -> None:
        if writes:
            last = run.step == total_steps
            record.write(model.state_dict(), unreadable=len(run.unreadable), last=last)

    def save() -> None:
        run.tally.read(run.epoch)  # a loss that is not finite must not get into the file
        note_unreadable()
        run.seconds += time.monotonic() - start
        if writes:
            state.save(run.state())

    def save_if_due() -> None:
        nonlocal start
        if not state.is_due():
            return
        save()
        start = time.monotonic()
        if state.stop_signal is not None:
            raise Interrupted(
                f"interrupted in epoch {run.epoch + 1}, after iteration {run.batches}; the same "
                "command with --resume goes on from there",
                state.stop_signal,
            )

    loaded = state.load() if resume else None
    distributed.wait_for_all()
    if loaded is not None:
        run.restore(loaded)
        if writes:
            say(f"resuming in epoch {run.epoch + 1}, after iteration {run.batches}")
        if record.rows and run.batches == 0:
            write_outputs()

    for epoch in range(run.epoch, epochs):
        if epoch != run.epoch:
            run.start_epoch(epoch)
        start = time.monotonic()
        if run.batches == 0:
            # Dropout draws from the global generator; nothing else does.
            torch.manual_seed(hash((seed, epoch, distributed.rank())) % 2**63)
        train_loader.set_epoch(epoch, first_batch=run.batches)
        if run.batches < steps_per_epoch and run.step < total_steps:
            train_one_epoch(
                network,
                train_loader,
                run,
                learning_rate=learning_rate,
                autocast=autocast,
                last_step=total_steps,
                accumulate=accumulate,
                log_interval=log_interval,
                after_step=save_if_due,
            )
        train_loss, train_acc = run.tally.read(epoch, all_processes=True)
        images = distributed.sum_up(run.tally.images)[0].item()
        trained = run.seconds + time.monotonic() - start
        val_loss = val_acc = None
        if run.step == total_steps or (epoch + 1) % val_interval == 0:
            distributed.share_buffers(model)
            val_loss, val_acc = evaluate(
                network,
                val_loader,
                autocast=autocast,
                device=device,
                epoch=epoch,
                after_batch=save_if_due,
            )
        row = {
            "epoch": epoch + 1,
            "step": run.step,
            "lr": run.lr,
            "sum_lr": run.sum_lr,
            "train_loss": train_loss,
            "train_acc": train_acc,
            "val_loss": val_loss,
            "val_acc": val_acc,
            "images_per_s": round(images / trained, 1),
            "seconds": round(run.seconds + time.monotonic() - start, 2),
        }
        record.add(row)
        note_unreadable()
        run.unreadable = distributed.union(run.unreadable)
        run.start_epoch(epoch + 1)
        if writes:
            state.save(run.state())
        write_outputs()
        if writes:
            say(epoch_line(row, epochs))
    if writes:
        state.remove()


def epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    """One aligned line for the console."""
    line = (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  step {row['step']}  lr {row['lr']:.6f}"
        f"  train loss {row['train_loss']:.4f} acc {row['train_acc']:6.2f} %"
    )
    if row["val_acc"] is not None:
        line += f"  val loss {row['val_loss']:.4f} acc {row['val_acc']:6.2f} %"
    return f"{line}  {row['images_per_s']:.0f} images/s  {row['seconds']:.1f} s"
