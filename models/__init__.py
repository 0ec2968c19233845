"""Networks by name, their layers, and their checkpoint files.

Importing this package imports neither torch nor torchvision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from safe_io import InputError

if TYPE_CHECKING:
    from torch import nn

# Base width of each narrow ResNet-50 (ResNet-50 itself has 64).
NARROW = {"resnet50_w32": 32, "resnet50_w16": 16, "resnet50_w8": 8}
ARCHS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", *NARROW)


def build(arch: str, num_classes: int = 1000) -> nn.Module:
    """Build the network `arch` (one of ARCHS) at its random initialisation.

    The parameters are drawn from torch's global generator. The classifier is an `nn.Linear` with
    `num_classes` outputs. Raises InputError for an unknown name.
    """
    if arch not in ARCHS:
        raise InputError(f"unknown architecture {arch!r}; known: {', '.join(ARCHS)}")
    if arch in NARROW:
        from .resnet import NarrowResNet50

        return NarrowResNet50(NARROW[arch], num_classes)
    from torchvision.models import get_model

    return get_model(arch, weights=None, num_classes=num_classes)
