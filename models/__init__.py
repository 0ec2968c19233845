"""Networks by name, their layers, and their checkpoint files.

Importing this package imports neither torch nor torchvision.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from console import InputError

if TYPE_CHECKING:
    from torch import nn

# Base width of each narrow ResNet-50 (ResNet-50 itself has 64).
NARROW = {"resnet50_w32": 32, "resnet50_w16": 16, "resnet50_w8": 8}
# torchvision's classification networks; its list_models() would have to import it.
TORCHVISION = """
    alexnet convnext_base convnext_large convnext_small convnext_tiny densenet121 densenet161
    densenet169 densenet201 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3
    efficientnet_b4 efficientnet_b5 efficientnet_b6 efficientnet_b7 efficientnet_v2_l
    efficientnet_v2_m efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet0_5 mnasnet0_75
    mnasnet1_0 mnasnet1_3 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_16gf
    regnet_x_1_6gf regnet_x_32gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf regnet_x_8gf
    regnet_y_128gf regnet_y_16gf regnet_y_1_6gf regnet_y_32gf regnet_y_3_2gf regnet_y_400mf
    regnet_y_800mf regnet_y_8gf resnet101 resnet152 resnet18 resnet34 resnet50 resnext101_32x8d
    resnext101_64x4d resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5
    shufflenet_v2_x2_0 squeezenet1_0 squeezenet1_1 swin_b swin_s swin_t swin_v2_b swin_v2_s
    swin_v2_t vgg11 vgg11_bn vgg13 vgg13_bn vgg16 vgg16_bn vgg19 vgg19_bn vit_b_16 vit_b_32
    vit_h_14 vit_l_16 vit_l_32 wide_resnet101_2 wide_resnet50_2
""".split()
ARCHS = (*TORCHVISION, *NARROW, "vit_small")
DEFAULT = "resnet50"
# Before the name of a network of timm.
TIMM = "timm/"


def arch_name(text: str) -> str:
    """An argparse type: one of ARCHS, or timm/NAME where timm is installed and has it."""
    if text.startswith(TIMM):
        from . import from_timm

        from_timm.check(text.removeprefix(TIMM))
    elif text not in ARCHS:
        raise argparse.ArgumentTypeError(
            f"invalid choice: {text!r} (choose from {', '.join(ARCHS)}, or {TIMM}NAME)"
        )
    return text


def default_image_size(arch: str) -> int | None:
    """Return the image size of a network built for a fixed one, None for the others."""
    if arch.startswith(TIMM):
        from . import from_timm

        return from_timm.fixed_image_size(arch.removeprefix(TIMM))
    return 224 if arch.startswith("vit_") or arch == "maxvit_t" else None


def build(arch: str, num_classes: int = 1000, *, image_size: int = 224) -> nn.Module:
    """Build the network `arch` (one of ARCHS or timm/NAME) at its standard initialisation.

    Input: images [N, 3, H, W]. Output: logits [N, num_classes]. The parameters are drawn from
    torch's global generator. image_size: pixels a side, for networks of a fixed size (ViT's
    position embedding). GoogLeNet and Inception are built without auxiliary classifiers. Raises
    InputError for an unknown name, and for an image size that the network does not allow.
    """
    if arch.startswith(TIMM):
        from . import from_timm

        return from_timm.build(arch.removeprefix(TIMM), num_classes, image_size=image_size)
    if arch not in ARCHS:
        raise InputError(f"unknown architecture {arch!r}; known: {', '.join(ARCHS)}")
    if arch in NARROW:
        from .resnet import NarrowResNet50

        return NarrowResNet50(NARROW[arch], num_classes)
    from torchvision.models import get_model

    from .vit import build_vit_small

    options = {}
    if arch.startswith("vit_"):
        options["image_size"] = image_size
    elif arch == "maxvit_t":
        options["input_size"] = (image_size, image_size)
    elif arch in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    try:
        if arch == "vit_small":
            return build_vit_small(num_classes, **options)
        return get_model(arch, weights=None, num_classes=num_classes, **options)
    except (ValueError, AssertionError) as error:
        raise InputError(f"{arch} cannot be built for image size {image_size}: {error}") from error
