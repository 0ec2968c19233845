"""Loss and accuracy of an epoch, counted on the device."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from console import InputError

from . import distributed


class Tally:
    """Sums of loss and hits on the device: reading them makes the processor wait for a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.loss_sum = torch.zeros((), dtype=torch.float32, device=device)
        self.hits = torch.zeros((), dtype=torch.int64, device=device)
        # First iteration, from 1, whose loss, or the sum with it, was not finite.
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.images = torch.zeros((), dtype=torch.int64, device=device)
        self.iterations = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add one batch, or a part of one; `loss` is its mean."""
        loss, logits = loss.detach(), logits.detach()
        self.loss_sum += loss.float() * len(labels)
        self.hits += (logits.argmax(dim=1) == labels).sum()
        self.images += len(labels)
        bad = (self.first_bad < 0) & ~torch.isfinite(self.loss_sum)
        self.first_bad.masked_fill_(bad, self.iterations + 1)

    def include(self, step: "Tally") -> None:
        """Add the counts of one step, summed over all processes.

        Summed in every step, since in mid-epoch the first process saves the sums by itself.
        """
        own = (step.loss_sum, step.hits, step.images, step.first_bad > 0)
        loss_sum, hits, images, bad = distributed.sum_up(*own)
        self.loss_sum += loss_sum
        self.hits += hits
        self.images += images
        self.iterations += 1
        self.first_bad.masked_fill_((self.first_bad < 0) & bad, self.iterations)

    def read(self, epoch: int) -> tuple[float, float]:
        """Mean loss, and accuracy in per cent, of the training images counted here.

        Raises InputError with the first iteration whose loss was not finite.
        """
        first_bad, loss, count = self.first_bad.item(), self.loss_sum.item(), self.images.item()
        if first_bad >= 0 or not math.isfinite(loss):
            since = first_bad if first_bad >= 0 else self.iterations
            raise InputError(
                f"the loss is not finite since epoch {epoch + 1}, iteration {since}; {self.advice}"
            )
        return loss / max(count, 1), 100.0 * self.hits.item() / max(count, 1)

    def read_evaluation(self, epoch: int | None) -> tuple[float, float]:
        """Mean loss, and accuracy in per cent, over the images that all processes have counted.

        epoch: of the training that is validated; None where a file is evaluated. Raises InputError,
        in all processes, where the loss is not finite.
        """
        sums = distributed.sum_up(self.loss_sum, self.hits, self.images, self.first_bad >= 0)
        loss, hits, images, bad = (x.item() for x in sums)
        bad = bad or not math.isfinite(loss)
        if bad and epoch is None:
            raise InputError(
                "the loss overflows although all parameters are finite: the outputs of this "
                "network on these images are too large"
            )
        if bad:
            raise InputError(
                f"the validation loss of epoch {epoch + 1} overflows, while that of training is "
                f"finite; {self.advice}"
            )
        return loss / max(images, 1), 100.0 * hits / max(images, 1)

    @property
    def advice(self) -> str:
        """What to try where the loss is not finite; precision is mixed on GPUs."""
        if self.loss_sum.device.type == "cpu":
            return "try a smaller --lr or --warmup_epochs 1"
        return "try a smaller --lr, --warmup_epochs 1 or --amp off"

    def state(self) -> dict[str, Any]:
        """The content in plain types, for `restore`."""
        return {key: v.cpu() if isinstance(v, Tensor) else v for key, v in vars(self).items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`, on the device of this tally."""
        device = self.loss_sum.device
        for key, value in state.items():
            setattr(self, key, value.to(device) if isinstance(value, Tensor) else value)
