"""Other names for the same tensors: keys of timm and of old torchvision, turned into today's."""

import re

from torch import Tensor

# timm's vision transformers (DeiT and DINO use the same names). Order matters: `norm.` is the last
# normalisation of the network, `blocks.0.norm1.` one inside a block.
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
# Names that torchvision's own networks had in earlier releases.
OLD_TORCHVISION = (
    (r"(.*denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),
    (r"(encoder\.layers\.encoder_layer_\d+\.mlp)\.linear_1\.", r"\1.0."),
    (r"(encoder\.layers\.encoder_layer_\d+\.mlp)\.linear_2\.", r"\1.3."),
)


def to_torchvision(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under torchvision's keys, in the same order; unknown keys stay.

    timm's keys are told by two that every vision transformer of it has.
    """
    table = OLD_TORCHVISION
    if "blocks.0.attn.qkv.weight" in tensors and "patch_embed.proj.weight" in tensors:
        table = TIMM_VIT
    return {rename(key, table): value for key, value in tensors.items()}


def rename(key: str, table: tuple[tuple[str, str], ...]) -> str:
    """The key with the first pattern that matches its start replaced."""
    for pattern, replacement in table:
        match = re.match(pattern, key)
        if match:
            return match.expand(replacement) + key[match.end() :]
    return key
