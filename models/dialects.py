"""Keys of timm and of early torchvision beside those of today's torchvision."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from .layers import Shapes, identify, partition

Value = TypeVar("Value")

POSITION = "encoder.pos_embedding"
# timm's vision transformers; DeiT and DINO use the same names.
TIMM_VIT = (
    (r"cls_token", "class_token"),
    (r"pos_embed", POSITION),
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


def to_today(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return the tensors of an early torchvision network under today's keys, in the same order."""
    return {rename(key, OLD_TORCHVISION): value for key, value in tensors.items()}


def to_torchvision(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """Return the tensors under torchvision's keys, in the same order; unknown keys stay.

    timm's dialect is recognised by two keys that each of its vision transformers has. Blocks with
    a module that torchvision's lack (BEiT, DINOv2) are no dialect of these, and stay.
    """
    if "blocks.0.attn.qkv.weight" not in tensors or "patch_embed.proj.weight" not in tensors:
        return to_today(tensors)
    renamed = {rename(key, TIMM_VIT): value for key, value in tensors.items()}
    foreign = any(key.startswith("blocks.") for key in renamed)
    return dict(tensors) if foreign else renamed


def rename(key: str, table: tuple[tuple[str, str], ...]) -> str:
    """Return the key, its start replaced by the first pattern that matches."""
    for pattern, replacement in table:
        match = re.match(pattern, key)
        if match:
            return match.expand(replacement) + key[match.end() :]
    return key


def align(tensors: Mapping[str, Value], keys: Iterable[str]) -> dict[str, Value]:
    """Return the tensors under the names that `keys` has for them, in the same order.

    Where less than half of the names agree, the two may differ in their dialect, and by a prefix
    that one of them has. Tensors that `keys` does not have keep their names.
    """
    tensors, keys = dict(tensors), list(keys)
    enough = min(len(tensors), len(keys)) / 2
    if len(tensors.keys() & set(keys)) >= enough:
        return tensors
    prefixes = [("", ""), *((x, "") for x in prefixes_of(tensors))]
    prefixes += [("", x) for x in prefixes_of(keys)]
    found = []
    for own, other in prefixes:
        names = to_torchvision(without(other, keys))
        today = to_torchvision(without(own, tensors))
        found.append({key: names[name] for name, key in today.items() if name in names})
    found.sort(key=len, reverse=True)
    # Two prefixes that fit alike are two networks, such as a student and its teacher.
    if len(found[0]) < enough or any(len(x) == len(found[0]) for x in found[1:]):
        return tensors
    renamed = {found[0].get(key, key): value for key, value in tensors.items()}
    return renamed if len(renamed) == len(tensors) else tensors


def prefixes_of(keys: Iterable[str]) -> list[str]:
    """Return the paths of the modules in which a network may be: one or two components."""
    found = {}
    for key in keys:
        parts = key.split(".")[:-1]
        found |= {".".join(parts[:n]) + ".": None for n in (1, 2) if len(parts) >= n}
    return list(found)


def without(prefix: str, keys: Iterable[str]) -> dict[str, str]:
    """Return key without the prefix -> key, for the keys that have it."""
    return {key[len(prefix) :]: key for key in keys if key.startswith(prefix)}


def name_of(shapes: Shapes) -> str:
    """Return the name of the network that has these tensors, or a description of an unknown one.

    A ViT has the name of torchvision's only if it has their position embedding, which is of a class
    token and of a square of patches.
    """
    today = to_torchvision(shapes)
    grouped = partition(today)
    positions = today.get(POSITION, (0, 0))[1] - 1
    if grouped.family == "ViT" and (positions < 1 or math.isqrt(positions) ** 2 != positions):
        return "a ViT of another kind"
    return identify(grouped)
