"""Which tensors make up a layer: the points of the paper's layer-wise figures (arXiv 2212.00399).

A layer is the stem convolution, a residual block (ResNet), a dense layer or a transition
(DenseNet), an encoder block (ViT), and the classifier. Only weights of convolutions and linear maps
on the main path count; biases, normalisation and the convolutions of shortcuts do not.

Everything is decided from `shapes`, key -> shape of every floating-point tensor of a state dict in
file order (`Checkpoint.shapes`), so no network is built and torchvision is not imported. A new
family is one more entry in FAMILIES.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from console import InputError

Shapes = Mapping[str, tuple[int, ...]]


class Family(NamedTuple):
    """Networks whose keys follow one scheme.

    layers: patterns of the counted weights. Group `layer` names the layer; `stage` and `block` are
        its place, so that the order of layers does not depend on the order in the file.
    head: module that holds the classifier.
    uncounted: pattern of the other weights of two or more dimensions that such a network has.
    lists_classifier: whether the classifier is a point of the paper's figures of this family.
    """

    name: str
    layers: tuple[str, ...]
    head: str
    uncounted: str
    lists_classifier: bool = True


# Numbers of at most nine digits: int() refuses thousands, which a broken file may hold.
FAMILIES = (
    Family(
        name="ResNet",
        layers=(
            r"(?P<layer>conv1)\.weight",
            r"(?P<layer>layer(?P<stage>\d{1,9})\.(?P<block>\d{1,9}))\.conv\d+\.weight",
        ),
        head="fc",
        uncounted=r"layer\d+\.\d+\.downsample\.0\.weight",
    ),
    Family(
        name="DenseNet",
        layers=(
            r"(?P<layer>features\.conv0)\.weight",
            r"(?P<layer>features\.denseblock(?P<stage>\d{1,9})\.denselayer(?P<block>\d{1,9}))"
            r"\.conv[12]\.weight",
            r"(?P<layer>features\.transition(?P<stage>\d{1,9}))\.conv\.weight",
        ),
        head="classifier",
        uncounted=r"(?!)",
    ),
    Family(
        name="ViT",
        layers=(
            r"(?P<layer>encoder\.layers\.encoder_layer_(?P<block>\d{1,9}))\."
            r"(?:self_attention\.in_proj_|self_attention\.out_proj\.|mlp\.[03]\.)weight",
        ),
        head="heads",
        uncounted=r"conv_proj\.(?:.*\.)?weight",
        lists_classifier=False,
    ),
)

# Auxiliary classifiers of GoogLeNet and Inception, which fine-tuned networks often lack.
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


class Layer(NamedTuple):
    """One point of the figure: its name and the keys of its weights."""

    name: str
    tensors: tuple[str, ...]
    is_classifier: bool = False


class Partition(NamedTuple):
    """Layers in network order, the classifier last if the network has one.

    head: module of the classifier ("" for a backbone without one).
    family: name of the entry of FAMILIES, or "" where every weight is a layer of its own.
    """

    layers: tuple[Layer, ...]
    head: str
    family: str


def weights(shapes: Shapes) -> list[str]:
    """Keys of what can count: two or more dimensions, not empty, a key that ends in `weight`."""
    return [
        key
        for key, shape in shapes.items()
        if len(shape) >= 2 and 0 not in shape and key.endswith("weight")
    ]


def partition(shapes: Shapes) -> Partition:
    """Group the weights of a network into layers.

    Every weight of a network of a known family has to be of a layer, or known not to count. Other
    networks get one layer per weight, named by its key; the last one is the classifier.
    """
    for family in FAMILIES:
        grouped = group_by_family(shapes, family)
        if grouped:
            return grouped
    keys = weights(shapes)
    layers = [Layer(key, (key,), is_classifier=key == keys[-1]) for key in keys]
    return Partition(tuple(layers), module_of(keys[-1]) if keys else "", family="")


def group_by_family(shapes: Shapes, family: Family) -> Partition | None:
    """The partition, or None where a pattern finds nothing or a weight is not accounted for."""
    places: dict[str, tuple[int, int, int]] = {}
    tensors: dict[str, list[str]] = {}
    used = set()
    for key in weights(shapes):
        if in_module(key, family.head) or re.fullmatch(family.uncounted, key):
            continue
        for rank, pattern in enumerate(family.layers):
            match = re.fullmatch(pattern, key)
            if match:
                place = {"stage": 0, "block": 0, **match.groupdict()}
                places[match["layer"]] = (int(place["stage"]), rank, int(place["block"]))
                tensors.setdefault(match["layer"], []).append(key)
                used.add(rank)
                break
        else:
            return None
    if len(used) < len(family.layers):
        return None
    layers = [Layer(name, tuple(sorted(tensors[name]))) for name in sorted(places, key=places.get)]
    head = tuple(key for key in weights(shapes) if in_module(key, family.head))
    if head and family.lists_classifier:
        layers.append(Layer(family.head, head, is_classifier=True))
    return Partition(tuple(layers), module_of(head[-1]) if head else "", family.name)


def module_of(key: str) -> str:
    """The module that owns the tensor `key`."""
    return key.rpartition(".")[0]


def in_module(key: str, module: str) -> bool:
    """Whether the tensor `key` belongs to `module` or to one of its children."""
    return key.startswith(module + ".")


def check_same_network(a: Shapes, other: Shapes, *, name_a: str, name_other: str) -> None:
    """Raise InputError unless both files hold the same counted weights, with the same shapes.

    The message names both architectures where they are known, and the first tensor that differs.
    Classifiers are not compared: downstream tasks have other numbers of classes.
    """
    grouped_a, grouped_other = partition(a), partition(other)
    left_out = auxiliary_heads(a, other)
    keys_a = [key for key in counted(grouped_a) if key not in left_out]
    keys_other = [
        key
        for key in (counted(grouped_other) if grouped_other.family else weights(other))
        if key not in left_out and not in_module(key, grouped_a.head)
    ]
    start = f"{name_a} ({identify(a)}) and {name_other} ({identify(other)}) are different networks"
    if keys_a and keys_other and not set(keys_a) & set(keys_other):
        raise InputError(
            f"{start}: none of the {len(keys_a)} weights of the first is among the "
            f"{len(keys_other)} of the second, such as {keys_other[0]}"
        )
    for key in [*keys_a, *keys_other]:
        if key not in a or key not in other:
            owner, lacking = (name_a, name_other) if key in a else (name_other, name_a)
            shape = list(a.get(key) or other[key])
            raise InputError(f"{start}: {key} {shape} of {owner} is missing in {lacking}")
        if a[key] != other[key]:
            raise InputError(
                f"{start}: {key} has the shape {list(a[key])} in the first "
                f"and {list(other[key])} in the second"
            )


def auxiliary_heads(a: Shapes, b: Shapes) -> list[str]:
    """Weights of an ungrouped network that are of classifiers beside the last one.

    Their first dimension is the number of classes of A in A, and that of B in B; or B lacks them.
    """
    grouped = partition(a)
    if grouped.family or not grouped.layers:
        return []
    lacking = [k for k in weights(a) if k not in b and k.startswith(AUXILIARY)]
    head = grouped.layers[-1].tensors[0]
    if head not in b or a[head][0] == b[head][0]:
        return lacking
    sides = (a[head][0], b[head][0])
    return lacking + [k for k in weights(a) if k != head and k in b and (a[k][0], b[k][0]) == sides]


def layers_to_compare(r: Shapes, a: Shapes, b: Shapes) -> tuple[list[Layer], list[str]]:
    """The layers that T has a value for, and the weights of auxiliary classifiers, left out of it.

    r, a, b: shapes of theta_r, theta_A, theta_FB, which are of one network (`check_same_network`).
    The layers are in network order; the classifier is the last one if B has one.
    """
    grouped = partition(a)
    if grouped.family:
        # Only B needs to have a classifier for one to be listed.
        grouped = partition(b)
    left_out = dict.fromkeys(key for x in (r, b) for key in auxiliary_heads(a, x))
    layers = [x for x in grouped.layers if x.tensors[0] in b and x.name not in left_out]
    return layers, list(left_out)


def num_classes(shapes: Shapes) -> int | None:
    """Outputs of the classifier; None for a network without one."""
    return next(iter(shapes.get(f"{partition(shapes).head}.weight", ())), None)


def counted(grouped: Partition) -> list[str]:
    """Keys of all weights of the layers without the classifier."""
    return [key for layer in grouped.layers if not layer.is_classifier for key in layer.tensors]


def identify(shapes: Shapes) -> str:
    """Name of the architecture, or words for one whose name is not known."""
    grouped = partition(shapes)
    if not grouped.family:
        return "an unknown network"
    layers = [layer for layer in grouped.layers if not layer.is_classifier]
    first, block = shapes[layers[0].tensors[0]], [shapes[key] for key in layers[-1].tensors]
    if grouped.family == "ResNet":
        depths = Counter(layer.name.partition(".")[0] for layer in layers[1:])
        # A grouped convolution sees only its share of the channels that the one before it gives.
        groups = block[0][0] // block[1][1] if len(block) > 1 and block[1][1] else 1
        sizes = (*depths.values(), len(block), first[0], block[0][0], groups)
    elif grouped.family == "DenseNet":
        depths = Counter(layer.name.split(".")[1] for layer in layers[1:])
        blocks = [n for name, n in depths.items() if name.startswith("denseblock")]
        sizes = (*blocks, first[0], block[-1][0])
    else:
        patch = (shapes.get("conv_proj.weight") or (0,))[-1]
        mlp = shapes[layers[0].tensors[0]][0]
        sizes = (len(layers), mlp, patch)
    return KNOWN_SIZES.get(sizes, f"a {grouped.family} of unknown size")


# ResNet: blocks of the four stages, convolutions per block, channels of the stem, of the first
# convolution in the last block, groups. DenseNet: layers of the four dense blocks, channels of the
# stem, growth. ViT: encoder blocks, width of the MLP, patch size.
KNOWN_SIZES = {
    (2, 2, 2, 2, 2, 64, 512, 1): "resnet18",
    (3, 4, 6, 3, 2, 64, 512, 1): "resnet34",
    (3, 4, 6, 3, 3, 64, 512, 1): "resnet50",
    (3, 4, 23, 3, 3, 64, 512, 1): "resnet101",
    (3, 8, 36, 3, 3, 64, 512, 1): "resnet152",
    (3, 4, 6, 3, 3, 32, 256, 1): "resnet50_w32",
    (3, 4, 6, 3, 3, 16, 128, 1): "resnet50_w16",
    (3, 4, 6, 3, 3, 8, 64, 1): "resnet50_w8",
    (3, 4, 6, 3, 3, 64, 1024, 32): "resnext50_32x4d",
    (3, 4, 23, 3, 3, 64, 2048, 32): "resnext101_32x8d",
    (3, 4, 23, 3, 3, 64, 2048, 64): "resnext101_64x4d",
    (3, 4, 6, 3, 3, 64, 1024, 1): "wide_resnet50_2",
    (3, 4, 23, 3, 3, 64, 1024, 1): "wide_resnet101_2",
    (6, 12, 24, 16, 64, 32): "densenet121",
    (6, 12, 36, 24, 96, 48): "densenet161",
    (6, 12, 32, 32, 64, 32): "densenet169",
    (6, 12, 48, 32, 64, 32): "densenet201",
    (12, 1536, 16): "vit_small",
    (12, 3072, 16): "vit_b_16",
    (12, 3072, 32): "vit_b_32",
    (24, 4096, 16): "vit_l_16",
    (24, 4096, 32): "vit_l_32",
    (32, 5120, 14): "vit_h_14",
}
