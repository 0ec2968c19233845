"""ViT-small, which torchvision lacks, and position embeddings for other image sizes."""

import math

from torch import Tensor
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from console import InputError, offer

from .dialects import POSITION


def build_vit_small(num_classes: int, image_size: int) -> VisionTransformer:
    """ViT-small/16: 12 blocks, 6 heads, width 384, MLP 1536 (torchvision's key names).

    Input: images [N, 3, image_size, image_size]. Output: logits [N, num_classes]. The sizes are
    those of DeiT-S (Touvron et al., arXiv 2012.12877). Raises AssertionError for an image size that
    patches of 16 pixels do not tile.
    """
    return VisionTransformer(
        image_size=image_size,
        patch_size=16,
        num_layers=12,
        num_heads=6,
        hidden_dim=384,
        mlp_dim=1536,
        num_classes=num_classes,
    )


def fit_to_image_size(tensors: dict[str, Tensor], image_size: int) -> dict[str, Tensor]:
    """Return the state dict, its position embedding interpolated (bicubic) to `image_size`.

    The same dict is returned if nothing changes, as for every network but a ViT. The embedding has
    the shape [1, 1 + patches, width], the class token first; InputError is raised for another.
    """
    if POSITION not in tensors or "conv_proj.weight" not in tensors:
        return tensors
    patch = tensors["conv_proj.weight"].shape[-1]
    if tensors[POSITION].shape[1] == (image_size // patch) ** 2 + 1:
        return tensors
    positions = tensors[POSITION].shape[1]
    if positions < 2 or math.isqrt(positions - 1) ** 2 != positions - 1:
        raise InputError(
            f"{POSITION} has {positions} positions, which are not a class token and a square of "
            "patches: it is another kind of ViT, with registers or a second token"
            + offer("; for timm's networks add --arch timm/NAME")
        )
    # torchvision's function writes into its argument.
    return interpolate_embeddings(image_size, patch, {**tensors})
