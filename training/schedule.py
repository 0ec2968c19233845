"""Optimizers and learning-rate schedules by name."""

import math

from torch import nn, optim

OPTIMIZERS = ("sgd", "adamw")
SCHEDULERS = ("step", "cosine", "constant")


def make_optimizer(
    name: str, model: nn.Module, *, lr: float, weight_decay: float
) -> optim.Optimizer:
    """SGD with momentum 0.9 (the paper's) or AdamW, weight decay on all parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    fused = all(p.is_cuda for p in parameters)
    if name == "adamw":
        return optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=fused)
    return optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=weight_decay, fused=fused)


def learning_rate(
    step: int,
    *,
    lr: float,
    scheduler: str,
    epochs: int,
    steps_per_epoch: int,
    max_steps: int | None = None,
    warmup_epochs: int = 0,
) -> float:
    """Learning rate of optimiser step `step`, counted from 0.

    step: divided by 10 every 40 epochs. cosine: from `lr` to 0 over the epochs. Both change once an
    epoch, as in the original code. With `max_steps` they change every step and end there: the
    cosine reaches 0, the division comes at one and two thirds (40 and 80 of the original's 120
    epochs). During warm-up the schedule is multiplied by a factor that grows linearly to 1.
    """
    epoch = step // steps_per_epoch
    done = step / max_steps if max_steps else epoch / epochs
    if scheduler == "cosine":
        lr *= 0.5 * (1 + math.cos(math.pi * done))
    elif scheduler == "step":
        lr *= 0.1 ** (int(3 * done) if max_steps else epoch // 40)
    warmup_steps = warmup_epochs * steps_per_epoch
    return lr * min(1.0, (step + 1) / warmup_steps) if warmup_steps else lr
