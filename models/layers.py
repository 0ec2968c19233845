"""Which tensors make up a layer: the points of the paper's layer-wise figures (arXiv 2212.00399).

A layer is the stem convolution, a residual block (ResNet), a dense layer or a transition
(DenseNet), an encoder block (ViT), and the classifier. Only weights of convolutions and linear maps
on the main path count; biases, normalisation and the convolutions of shortcuts do not.

Everything is decided from keys and shapes, so no network is built and torchvision is not imported.
A new family is one more entry in FAMILIES.
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
        its position, so that the order of layers does not depend on the order in the file.
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
    """The layers of one file, in network order, the classifier last if there is one.

    shapes: key -> shape of every floating-point tensor, in file order.
    head: module of the classifier ("" for a backbone without one).
    family: name of the entry of FAMILIES, or "" where every weight is a layer of its own.
    """

    shapes: Shapes
    layers: tuple[Layer, ...]
    head: str
    family: str

    @property
    def counted(self) -> list[str]:
        """Keys of all weights of the layers without the classifier."""
        return [key for x in self.layers if not x.is_classifier for key in x.tensors]


def weights(shapes: Shapes) -> list[str]:
    """Return the keys that can count: non-empty, two or more dimensions, ending in `weight`."""
    return [
        key
        for key, shape in shapes.items()
        if len(shape) >= 2 and 0 not in shape and key.endswith("weight")
    ]


def partition(shapes: Shapes) -> Partition:
    """Group the weights of a network into layers.

    shapes: key -> shape of every floating-point tensor of a state dict, in file order. Every weight
    of a network of a known family has to belong to a layer, or to be known not to count. Other
    networks get one layer per weight, named by its key; the last one is the classifier.
    """
    for family in FAMILIES:
        grouped = group_by_family(shapes, family)
        if grouped:
            return grouped
    keys = weights(shapes)
    layers = [Layer(key, (key,), is_classifier=key == keys[-1]) for key in keys]
    return Partition(shapes, tuple(layers), module_of(keys[-1]) if keys else "", family="")


def group_by_family(shapes: Shapes, family: Family) -> Partition | None:
    """Return the partition, or None if a pattern matches no weight or a weight no pattern."""
    positions: dict[str, tuple[int, int, int]] = {}
    tensors: dict[str, list[str]] = {}
    used = set()
    for key in weights(shapes):
        if in_module(key, family.head) or re.fullmatch(family.uncounted, key):
            continue
        for rank, pattern in enumerate(family.layers):
            match = re.fullmatch(pattern, key)
            if match:
                numbers = {"stage": 0, "block": 0, **match.groupdict()}
                position = int(numbers["stage"]), rank, int(numbers["block"])
                positions[match["layer"]] = position
                tensors.setdefault(match["layer"], []).append(key)
                used.add(rank)
                break
        else:
            return None
    if len(used) < len(family.layers):
        return None
    names = sorted(positions, key=positions.get)
    layers = [Layer(name, tuple(sorted(tensors[name]))) for name in names]
    head = tuple(key for key in weights(shapes) if in_module(key, family.head))
    if head and family.lists_classifier:
        layers.append(Layer(family.head, head, is_classifier=True))
    return Partition(shapes, tuple(layers), module_of(head[-1]) if head else "", family.name)


def module_of(key: str) -> str:
    """Return the module that owns the tensor `key`."""
    return key.rpartition(".")[0]


def in_module(key: str, module: str) -> bool:
    """Whether the tensor `key` belongs to `module` or to one of its children."""
    return key.startswith(module + ".")


def check_same_network(a: Partition, other: Partition, *, name_a: str, name_other: str) -> None:
    """Raise InputError unless both files hold the same counted weights, with the same shapes.

    The message names both architectures where they are known, and the first tensor that differs.
    Classifiers are not compared: downstream tasks have other numbers of classes.
    """
    left_out = auxiliary_heads(a, other)
    keys_a = [key for key in a.counted if key not in left_out]
    keys_other = [
        key
        for key in (other.counted if other.family else weights(other.shapes))
        if key not in left_out and not in_module(key, a.head)
    ]
    start = f"{name_a} ({identify(a)}) and {name_other} ({identify(other)}) are different networks"
    if keys_a and keys_other and not set(keys_a) & set(keys_other):
        raise InputError(
            f"{start}: none of the {len(keys_a)} weights of the first is among the "
            f"{len(keys_other)} of the second, such as {keys_other[0]}"
        )
    for key in [*keys_a, *keys_other]:
        if key not in a.shapes or key not in other.shapes:
            owner, lacking = (name_a, name_other) if key in a.shapes else (name_other, name_a)
            shape = list(a.shapes.get(key) or other.shapes[key])
            raise InputError(f"{start}: {key} {shape} of {owner} is missing in {lacking}")
        if a.shapes[key] != other.shapes[key]:
            raise InputError(
                f"{start}: {key} has the shape {list(a.shapes[key])} in the first "
                f"and {list(other.shapes[key])} in the second"
            )


def auxiliary_heads(a: Partition, b: Partition) -> list[str]:
    """Return the weights of an ungrouped network that belong to classifiers before the last one.

    Their first dimension is the number of classes of A in A, and that of B in B; or B lacks them.
    """
    if a.family or not a.layers:
        return []
    keys, head = weights(a.shapes), a.layers[-1].tensors[0]
    lacking = [k for k in keys if k not in b.shapes and k.startswith(AUXILIARY)]
    if head not in b.shapes or a.shapes[head][0] == b.shapes[head][0]:
        return lacking
    sides = a.shapes[head][0], b.shapes[head][0]
    shared = [k for k in keys if k in b.shapes and k != head]
    return lacking + [k for k in shared if (a.shapes[k][0], b.shapes[k][0]) == sides]


def layers_to_compare(r: Partition, a: Partition, b: Partition) -> tuple[list[Layer], list[str]]:
    """Return the layers to measure, and the weights of auxiliary classifiers, which are left out.

    r, a, b: of theta_r, theta_A, theta_FB, which are of one network (`check_same_network`). The
    layers are in network order; the classifier is the last one if B has one.
    """
    left_out = dict.fromkeys(key for x in (r, b) for key in auxiliary_heads(a, x))
    # Only B needs to have a classifier for one to be listed.
    grouped = b if a.family else a
    layers = [x for x in grouped.layers if x.tensors[0] in b.shapes and x.name not in left_out]
    return layers, list(left_out)


def num_classes(grouped: Partition) -> int | None:
    """Return the number of outputs of the classifier, None for a network without one."""
    return next(iter(grouped.shapes.get(f"{grouped.head}.weight", ())), None)


def identify(grouped: Partition) -> str:
    """Return the name of the architecture, or a description of one without a known name."""
    if not grouped.family:
        return "an unknown network"
    shapes = grouped.shapes
    layers = [layer for layer in grouped.layers if not layer.is_classifier]
    first, block = shapes[layers[0].tensors[0]], [shapes[key] for key in layers[-1].tensors]
    if grouped.family == "ResNet":
        depths = Counter(layer.name.partition(".")[0] for layer in layers[1:])
        # A grouped convolution sees only its share of the channels of the one before it.
        groups = block[0][0] // block[1][1] if len(block) > 1 and block[1][1] else 1
        sizes = (*depths.values(), len(block), first[0], block[0][0], groups)
    elif grouped.family == "DenseNet":
        depths = Counter(layer.name.split(".")[1] for layer in layers[1:])
        blocks = [n for name, n in depths.items() if name.startswith("denseblock")]
        sizes = (*blocks, first[0], block[-1][0])
    else:
        patch = (shapes.get("conv_proj.weight") or (0,))[-1]
        sizes = (len(layers), first[0], patch)  # the first weight is that of mlp.0
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
