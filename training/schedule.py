"""Optimisers and learning-rate schedules by name."""

import math
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The number of optimiser steps of a run, and the learning rate of each.

    step: divided by 10 every 40 epochs. cosine: from `lr` to 0 over the epochs. Both change once an
    epoch, as in the original code. With `max_steps` they change every step and end there: the
    cosine reaches 0, the division comes at one and two thirds (40 and 80 of the original's 120
    epochs). During warm-up the schedule is multiplied by a factor that grows linearly to 1.
    """

    scheduler: str
    lr: float
    max_epoch: int
    steps_per_epoch: int
    max_steps: int | None = None
    warmup_epochs: int = 0

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.max_steps or self.max_epoch * self.steps_per_epoch

    @property
    def epochs(self) -> int:
        """Passes through the data that these steps take; the last may be incomplete."""
        return -(-self.steps // self.steps_per_epoch)

    def learning_rate(self, step: int) -> float:
        """Learning rate of optimiser step `step`, counted from 0."""
        lr, epoch = self.lr, step // self.steps_per_epoch
        done = step / self.max_steps if self.max_steps else epoch / self.max_epoch
        if self.scheduler == "cosine":
            lr *= 0.5 * (1 + math.cos(math.pi * done))
        elif self.scheduler == "step":
            lr *= 0.1 ** (int(3 * done) if self.max_steps else epoch // 40)
        warmup_steps = self.warmup_epochs * self.steps_per_epoch
        return lr * min(1.0, (step + 1) / warmup_steps) if warmup_steps else lr
