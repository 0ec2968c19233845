"""phi(x), the input of theta_A's classifier: for all images of a data set, batch by batch."""

from collections.abc import Iterator
from copy import copy

import torch
from torch import Tensor, nn

from console import InputError
from datasets.images import Images
from datasets.loader import make_loader
from datasets.progress import Progress
from models import build
from models.checkpoint import Checkpoint
from models.dialects import align
from models.pretrained import heads_of, load_pretrained
from training.device import explain_errors


def load_network(theta: Checkpoint, arch: str, *, image_size: int) -> tuple[nn.Module, str]:
    """Return (the network with theta's parameters in eval mode, name of its classifier's module).

    The classifier itself is left random, since phi does not depend on it. Raises InputError where
    the file does not fit `arch`, and where it has no classifier, whose input nobody would know.
    """
    model = build(arch, image_size=image_size)
    head = heads_of(model)[0]
    if f"{head}.weight" not in align(theta.tensors, model.state_dict()):
        raise InputError(
            f"{theta.path} has no classifier {head} of {arch}, whose input G and D are about; give "
            "the file of a whole network"
        )
    load_pretrained(model, theta, image_size=image_size, arch=arch)
    theta.check_unchanged()
    return model.eval(), head


def features(
    model: nn.Module,
    head: str,
    images: Images,
    *,
    name: str,
    batch_size: int,
    num_workers: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (indices int64 [n], phi float32 [n, p]) on the CPU, every readable image once.

    Images go through the validation transform, in float32. Where the classifier is a convolution
    (SqueezeNet), phi is the mean over the positions of its input. name: of the data set, for
    messages. After the last batch InputError is raised if any phi was not finite.
    """
    numbered = copy(images)
    # Unreadable images are left out of a batch; labels that are numbers tell which ones.
    numbered.labels = torch.arange(len(images))
    loader = make_loader(
        numbered,
        train=False,
        batch_size=batch_size,
        seed=0,
        num_workers=num_workers,
        device=device,
    )
    inputs: list[Tensor] = []
    hook = model.get_submodule(head).register_forward_pre_hook(
        lambda module, args: inputs.append(args[0])
    )
    seen = broken = 0
    try:
        with explain_errors("give a smaller --batch_size"):
            for batch, indices in Progress(len(loader), name, loader=loader):
                with torch.inference_mode():
                    model(batch)
                    phi = inputs.pop()
                    phi = phi.flatten(2).mean(2) if phi.dim() > 2 else phi
                seen += len(phi)
                phi = phi.cpu()
                broken += int((~phi.isfinite()).any(1).sum())
                yield indices.cpu(), phi
    finally:
        hook.remove()
    if broken:
        raise InputError(
            f"NaN or infinity among the features of {broken} of {seen} images of {name}; theta_A "
            "may have diverged"
        )


class FeatureSample:
    """The features of chosen images, gathered batch by batch.

    chosen: indices int64 [k] into a data set of `number` images. Memory: k p numbers.
    """

    def __init__(self, chosen: Tensor, number: int) -> None:
        # Image -> its row of phi, -1 for one that is not chosen.
        self.row = torch.full((number,), -1)
        self.row[chosen] = torch.arange(len(chosen))
        self.filled = torch.zeros(len(chosen), dtype=torch.bool)
        self.phi: Tensor | None = None

    def add(self, indices: Tensor, phi: Tensor) -> None:
        """Take the chosen images of a batch: indices int64 [n], phi [n, p]."""
        if self.phi is None:
            self.phi = phi.new_empty(len(self.filled), phi.shape[1])
        row = self.row[indices]
        self.phi[row[row >= 0]] = phi[row >= 0]
        self.filled[row[row >= 0]] = True

    def result(self) -> Tensor:
        """phi [k, p] in the order chosen, without the images that could not be read."""
        return self.phi[self.filled]
