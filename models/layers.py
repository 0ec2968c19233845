"""Which tensors make up a layer: the points of the paper's layer-wise figures.

A layer is the stem convolution, a residual block (ResNet), a dense layer or a transition
(DenseNet), an encoder block (ViT), and the classifier. Only weights of convolutions and linear maps
on the main path count; biases, normalisation and the convolutions of shortcuts do not. Everything
is decided from the keys and shapes of a state dict, so no network is built and torchvision is not
imported. A new family is one more entry in FAMILIES.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from safe_io import InputError

Shapes = Mapping[str, tuple[int, ...]]


class Family(NamedTuple):
    """Networks whose keys follow one scheme.

    layers: patterns of the counted weights. Group `layer` names the layer; `stage` and `block` are
        its place, so that the order of layers does not depend on the order in the file.
    head: module that holds the classifier.
    uncounted: pattern of the other weights of two or more dimensions that such a network has.
    """

    name: str
    layers: tuple[str, ...]
    head: str
    uncounted: str


FAMILIES = (
    Family(
        name="resnet",
        layers=(
            r"(?P<layer>conv1)\.weight",
            r"(?P<layer>layer(?P<stage>\d+)\.(?P<block>\d+))\.conv\d+\.weight",
        ),
        head="fc",
        uncounted=r"layer\d+\.\d+\.downsample\.0\.weight",
    ),
)


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
    """Keys of what can count: two or more dimensions and a key that ends in `weight`."""
    return [key for key, shape in shapes.items() if len(shape) >= 2 and key.endswith("weight")]


def partition(shapes: Shapes) -> Partition:
    """Group the weights of a network into layers.

    shapes: key -> shape of every floating-point tensor of the state dict, in file order.
    Unknown networks get one layer per weight, the last weight being the classifier.
    """
    for family in FAMILIES:
        grouped = group_by_family(shapes, family)
        if grouped:
            return grouped
    keys = weights(shapes)
    layers = [Layer(name=key.removesuffix(".weight"), tensors=(key,)) for key in keys]
    if layers:
        layers[-1] = layers[-1]._replace(is_classifier=True)
    return Partition(tuple(layers), layers[-1].name if layers else "", family="")


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
    if head:
        layers.append(Layer(family.head, head, is_classifier=True))
    return Partition(tuple(layers), family.head if head else "", family.name)


def in_module(key: str, module: str) -> bool:
    """Whether the tensor `key` belongs to `module` or to one of its children."""
    return key.startswith(module + ".")


def check_same_network(a: Shapes, other: Shapes, *, name_a: str, name_other: str) -> None:
    """Raise InputError unless both files hold the same counted weights, with the same shapes.

    The message names both architectures where they are known, and the first tensor that differs.
    Classifiers are not compared: downstream tasks have other numbers of classes.
    """
    grouped_a, grouped_other = partition(a), partition(other)
    keys_a = counted(grouped_a)
    if grouped_other.family:
        keys_other = counted(grouped_other)
    else:
        keys_other = [key for key in weights(other) if not in_module(key, grouped_a.head)]
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


def counted(grouped: Partition) -> list[str]:
    """Keys of all weights of the layers without the classifier."""
    return [key for layer in grouped.layers if not layer.is_classifier for key in layer.tensors]


# (blocks per stage, convolutions per block, stem channels, width of a block, groups) -> name
RESNETS = {
    ((2, 2, 2, 2), 2, 64, 64, 1): "resnet18",
    ((3, 4, 6, 3), 2, 64, 64, 1): "resnet34",
    ((3, 4, 6, 3), 3, 64, 64, 1): "resnet50",
    ((3, 4, 23, 3), 3, 64, 64, 1): "resnet101",
    ((3, 8, 36, 3), 3, 64, 64, 1): "resnet152",
    ((3, 4, 6, 3), 3, 32, 32, 1): "resnet50_w32",
    ((3, 4, 6, 3), 3, 16, 16, 1): "resnet50_w16",
    ((3, 4, 6, 3), 3, 8, 8, 1): "resnet50_w8",
}


def identify(shapes: Shapes) -> str:
    """Name of the architecture, or words for one whose name is not known."""
    grouped = partition(shapes)
    if grouped.family == "resnet":
        return RESNETS.get(resnet_signature(grouped.layers, shapes), "a ResNet of unknown size")
    return "an unknown network"


def resnet_signature(layers: Iterable[Layer], shapes: Shapes) -> tuple:
    """The sizes that tell one ResNet from another, as in the keys of RESNETS."""
    stem, *blocks = [layer for layer in layers if not layer.is_classifier]
    depths = Counter(block.name.split(".")[0] for block in blocks)
    first = [shapes[key] for key in blocks[0].tensors]
    groups = first[0][0] // first[1][1] if len(first) > 1 and first[1][1] else 1
    return tuple(depths.values()), len(first), shapes[stem.tensors[0]][0], first[0][0], groups
