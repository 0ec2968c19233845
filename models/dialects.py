"""Keys of timm and of early torchvision, translated into those of today's torchvision."""

import re

from torch import Tensor

# timm's vision transformers; DeiT and DINO use the same names.
TIMM_VIT = (
    (r"cls_token", "class_token"),
    (r"pos_embed", "encoder.pos_embedding"),
    (r"patch_embed\.proj\.", "conv_proj."),
    (r"blocks\.(\d+)\.norm1\.", r"encoder.layers.encoder_layer_\1.ln_1."),
    (r"blocks\.(\d+)\.norm2\.", r"encoder.layers.encoder_layer_\1.ln_2."),
    (r"blocks\.(\d+)\.attn\.qkv\.", r"encoder.layers.encoder_layer_\1.self_attention.in_proj_"),
    (r"blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.encoder_layer_\1.self_attention.out_proj."),
    (r"blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layers.encoder_layer_\1.mlp.0."),
    (r"blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layers.encoder_layer_\1.mlp.3."),
    (r"norm\.", "encoder.ln."),
    (r"head\.", "heads.head."),
)
# Names in torchvision's own networks of earlier releases.
OLD_TORCHVISION = (
    (r"(.*denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),
    (r"(encoder\.layers\.encoder_layer_\d+\.mlp)\.linear_1\.", r"\1.0."),
    (r"(encoder\.layers\.encoder_layer_\d+\.mlp)\.linear_2\.", r"\1.3."),
)


def to_torchvision(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under torchvision's keys, in the same order; unknown keys stay.

    timm's dialect is recognised by two keys that each of its vision transformers has.
    """
    table = OLD_TORCHVISION
    if "blocks.0.attn.qkv.weight" in tensors and "patch_embed.proj.weight" in tensors:
        table = TIMM_VIT
    return {rename(key, table): value for key, value in tensors.items()}


def rename(key: str, table: tuple[tuple[str, str], ...]) -> str:
    """Return the key, its start replaced by the first pattern that matches."""
    for pattern, replacement in table:
        match = re.match(pattern, key)
        if match:
            return match.expand(replacement) + key[match.end() :]
    return key
