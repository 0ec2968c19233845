"""The training loop of both scripts: one epoch, one evaluation, and `fit`, which joins them."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from safe_io import InputError

from .runstate import Record


class Tally:
    """Loss and hits, summed on the device: reading them would make the processor wait for a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.loss_sum = torch.zeros((), dtype=torch.float32, device=device)
        self.hits = torch.zeros((), dtype=torch.int64, device=device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.images = 0
        self.iterations = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add one batch; `loss` is its mean."""
        loss, logits = loss.detach(), logits.detach()
        self.loss_sum += loss.float() * len(labels)
        self.hits += (logits.argmax(dim=1) == labels).sum()
        bad = (self.first_bad < 0) & ~torch.isfinite(loss)
        self.first_bad.masked_fill_(bad, self.iterations + 1)
        self.images += len(labels)
        self.iterations += 1

    def read(self, epoch: int) -> tuple[float, float]:
        """Mean loss, and accuracy in per cent.

        Raises InputError with the first iteration (counted from 1) whose loss was not finite.
        """
        first_bad = self.first_bad.item()
        if first_bad >= 0:
            raise InputError(
                f"the loss is not finite since epoch {epoch + 1}, iteration {first_bad}; "
                "try a smaller --lr, --warmup_epochs 1 or --amp off"
            )
        images = max(self.images, 1)
        return self.loss_sum.item() / images, 100.0 * self.hits.item() / images


def train_one_epoch(
    model: nn.Module,
    loader: Any,
    *,
    optimizer: torch.optim.Optimizer,
    learning_rate: Callable[[int], float],
    scaler: torch.amp.GradScaler,
    autocast: Callable[[], contextlib.AbstractContextManager],
    device: torch.device,
    epoch: int,
    first_step: int,
    last_step: int,
    log_interval: int | None,
) -> tuple[Tally, list[float]]:
    """Train until the loader or the steps (up to `last_step`) are used up.

    Returns the sums over the images seen and the learning rate of each step.
    """
    model.train()
    tally = Tally(device)
    rates: list[float] = []
    bar = ProgressBar(loader, f"epoch {epoch + 1}", last_step - first_step)
    for images, labels in bar:
        rates.append(learning_rate(first_step + len(rates)))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        with autocast():
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        tally.add(loss, logits, labels)

        if log_interval and len(rates) % log_interval == 0:
            loss_now, accuracy = tally.read(epoch)
            bar.write(
                f"epoch {epoch + 1}, iteration {len(rates)}/{bar.total}: lr {rates[-1]:.6f}, "
                f"train loss {loss_now:.4f}, accuracy {accuracy:.2f} %",
                file=sys.stdout,
            )
        elif bar.is_due():
            bar.set_postfix_str(f"loss {tally.read(epoch)[0]:.4f}", refresh=False)
        if first_step + len(rates) == last_step:
            break
    bar.close()
    return tally, rates


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Any,
    *,
    autocast: Callable[[], contextlib.AbstractContextManager],
    device: torch.device,
    epoch: int,
) -> tuple[float, float]:
    """Mean cross-entropy, and accuracy in per cent, over all images of the loader."""
    model.eval()
    tally = Tally(device)
    for images, labels in ProgressBar(loader, f"epoch {epoch + 1}, validation", len(loader)):
        with autocast():
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
        tally.add(loss, logits, labels)
    return tally.read(epoch)


class ProgressBar(tqdm):
    """tqdm over at most `steps` batches on a terminal, nothing elsewhere."""

    def __init__(self, loader: Any, name: str, steps: int) -> None:
        hidden = not sys.stderr.isatty()
        total = min(len(loader), steps)
        super().__init__(loader, desc=name, total=total, disable=hidden, leave=False, ascii=True)
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
    device: torch.device,
    seed: int,
    val_interval: int,
    log_interval: int | None,
    record: Record,
) -> None:
    """Train `model` (on `device`) and hand every epoch to `record`.

    Loaders are those of `datasets.loader`: (images float32 [N, 3, H, W], labels int64 [N]) on the
    device, their length in batches. learning_rate: step -> rate. max_steps: exact number of
    optimiser steps, over as many epochs as it takes. precision: type of the autocast regions, None
    for none. Raises InputError when the loss is no longer finite.
    """
    steps_per_epoch = len(train_loader)
    total_steps = max_steps or epochs * steps_per_epoch
    epochs = -(-total_steps // steps_per_epoch)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)

    def autocast() -> contextlib.AbstractContextManager:
        return torch.autocast(device.type, dtype=precision, enabled=precision is not None)

    step, sum_lr = 0, 0.0
    for epoch in range(epochs):
        start = time.monotonic()
        # Dropout draws from the global generator; nothing else does.
        torch.manual_seed(hash((seed, epoch)) % 2**63)
        train_loader.set_epoch(epoch)
        tally, rates = train_one_epoch(
            model,
            train_loader,
            optimizer=optimizer,
            learning_rate=learning_rate,
            scaler=scaler,
            autocast=autocast,
            device=device,
            epoch=epoch,
            first_step=step,
            last_step=total_steps,
            log_interval=log_interval,
        )
        train_loss, train_acc = tally.read(epoch)
        trained = time.monotonic()
        step += len(rates)
        sum_lr += sum(rates)
        last = step == total_steps
        val_loss = val_acc = None
        if last or (epoch + 1) % val_interval == 0:
            val_loss, val_acc = evaluate(
                model, val_loader, autocast=autocast, device=device, epoch=epoch
            )
        row = {
            "epoch": epoch + 1,
            "step": step,
            "lr": rates[-1],
            "sum_lr": sum_lr,
            "train_loss": train_loss,
            "train_acc": train_acc,
            "val_loss": val_loss,
            "val_acc": val_acc,
            "images_per_s": round(tally.images / (trained - start), 1),
            "seconds": round(time.monotonic() - start, 2),
        }
        unreadable = len(train_loader.unreadable) + len(val_loader.unreadable)
        record.add(row, model.state_dict(), unreadable=unreadable, last=last)
        print(epoch_line(row, epochs), flush=True)


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """One aligned line for the console."""
    line = (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  step {row['step']}  lr {row['lr']:.6f}"
        f"  train loss {row['train_loss']:.4f} acc {row['train_acc']:6.2f} %"
    )
    if row["val_acc"] is not None:
        line += f"  val loss {row['val_loss']:.4f} acc {row['val_acc']:6.2f} %"
    return f"{line}  {row['images_per_s']:.0f} images/s  {row['seconds']:.1f} s"
