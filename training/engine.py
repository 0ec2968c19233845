"""The training loop of both scripts: `fit`, `train_one_epoch` with its steps, `evaluate`."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from console import say
from datasets.loader import Loader
from datasets.progress import Progress
from datasets.workers import while_waiting

from . import distributed
from .device import mixed_precision
from .resume import stoppable
from .run import Run
from .tally import Tally


def fit(
    run: Run,
    train_loader: Loader,
    val_loader: Loader | None,
    *,
    val_interval: int = 1,
    log_interval: int | None = None,
    resume: bool = False,
) -> None:
    """Train the network of `run` to the end of its schedule, and write its files.

    val_loader: None where nothing is validated. val_interval: epochs from validation to validation;
    the last epoch is always validated.
    log_interval: iterations from line to line. resume: go on from X.resume if there is one. Raises
    InputError when the loss is no longer finite, and Interrupted after a signal, the state saved.
    """
    run.loaders = tuple(loader for loader in (train_loader, val_loader) if loader is not None)

    def stop_waiting() -> None:
        if run.file.stop_signal is not None:
            run.save_if_due()

    with stoppable(run.file), while_waiting(stop_waiting):
        if resume:
            run.resume()
        # Those of validation too: what the system refuses comes to light before an epoch is lost.
        for loader in run.loaders:
            loader.start()
        while run.epoch < run.schedule.epochs:
            run.start_epoch()
            train_loader.set_epoch(run.epoch, first_batch=run.batches)
            # A run that was interrupted in validation goes on there.
            if run.batches < len(train_loader) and not run.is_over:
                train_one_epoch(run, train_loader, log_interval=log_interval)
            row = run.training_row()
            due = run.is_over or (run.epoch + 1) % val_interval == 0
            if due and val_loader is not None:
                distributed.share_buffers(run.model)
                row["val_loss"], row["val_acc"] = evaluate(
                    run.network,
                    val_loader,
                    precision=run.precision,
                    device=run.device,
                    epoch=run.epoch,
                    after_batch=run.save_if_due,
                )
            run.end_epoch(row)
            say(epoch_line(row, run.schedule.epochs))
        run.file.remove()


def train_one_epoch(run: Run, loader: Loader, *, log_interval: int | None = None) -> None:
    """Train from where `run` is until the loader or the steps of the run are used up."""
    run.network.train()
    total = min(len(loader), run.batches + run.schedule.steps - run.step)
    bar = Progress(total, f"epoch {run.epoch + 1}", loader=loader, done=run.batches)
    for images, labels in bar:
        run.set_learning_rate()
        run.optimizer.zero_grad(set_to_none=True)
        weight = loader.weight(run.batches)  # 1 but where processes have uneven shares
        counted = Tally(run.device)
        for part, part_labels, is_last in parts_of(images, labels, run.accumulate):
            with synchronised(run.network, is_last):
                with mixed_precision(run.device, run.precision):
                    logits = run.network(part)
                    loss = F.cross_entropy(logits, part_labels)
                share = weight * len(part_labels) / len(labels)
                run.scaler.scale(loss * share).backward()
            counted.add(loss, logits, part_labels)
        run.scaler.step(run.optimizer)
        run.scaler.update()
        run.end_step(counted)

        if log_interval and run.batches % log_interval == 0:
            bar.say(iteration_line(run, total))
        elif bar.is_due():
            bar.set_postfix_str(f"loss {run.tally.read(run.epoch)[0]:.4f}", refresh=False)
        run.save_if_due()
        if run.is_over:
            break
    bar.close()


def parts_of(images: Tensor, labels: Tensor, number: int) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """Split a batch for gradient accumulation: images, labels, and whether the part is the last.

    number: of parts; fewer where one would hold a single image, on which BatchNorm cannot train.
    """
    number = min(number, max(1, len(labels) // 2))
    parts = zip(images.tensor_split(number), labels.tensor_split(number), strict=True)
    for i, (part, part_labels) in enumerate(parts, start=1):
        yield part, part_labels, i == number


def synchronised(network: nn.Module, is_last: bool) -> contextlib.AbstractContextManager:
    """Several processes exchange gradients with the last part of a batch only."""
    wrapped = isinstance(network, nn.parallel.DistributedDataParallel)
    return network.no_sync() if wrapped and not is_last else contextlib.nullcontext()


@torch.no_grad()
def evaluate(
    network: nn.Module,
    loader: Loader,
    *,
    precision: torch.dtype | None,
    device: torch.device,
    epoch: int | None = None,
    after_batch: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Mean cross-entropy, and accuracy in per cent, over all images of all processes.

    epoch: as for `Tally.read_evaluation`, which raises InputError where the loss is not finite.
    """
    network.eval()
    tally = Tally(device)
    name = "evaluation" if epoch is None else f"epoch {epoch + 1}, validation"
    for images, labels in Progress(len(loader), name, loader=loader):
        with mixed_precision(device, precision):
            logits = network(images)
            loss = F.cross_entropy(logits, labels)
        tally.add(loss, logits, labels)
        tally.iterations += 1
        after_batch()
    return tally.read_evaluation(epoch)


def iteration_line(run: Run, iterations: int) -> str:
    """Console line in mid-epoch. iterations: of the whole epoch."""
    loss, accuracy = run.tally.read(run.epoch)
    return (
        f"epoch {run.epoch + 1}, iteration {run.batches}/{iterations}: lr {run.lr:.6f}, "
        f"train loss {loss:.4f}, accuracy {accuracy:.2f} %"
    )


def epoch_line(row: Mapping[str, Any], epochs: int) -> str:
    """Aligned console line of an epoch; row: of the record."""
    line = (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  step {row['step']}  lr {row['lr']:.6f}"
        f"  train loss {row['train_loss']:.4f} acc {row['train_acc']:6.2f} %"
    )
    if row["val_acc"] is not None:
        line += f"  val loss {row['val_loss']:.4f} acc {row['val_acc']:6.2f} %"
    return f"{line}  {row['images_per_s']:.0f} images/s  {row['seconds']:.1f} s"
