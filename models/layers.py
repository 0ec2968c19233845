"""Which tensors make up a layer: the points of the paper's layer-wise figures (arXiv 2212.00399).

A layer is the stem, a block (residual block, dense layer, encoder block, ...), a transition between
two stages, or the classifier. Only weights of convolutions and linear maps on the main path count:
no biases, normalisation, shortcuts, gates and tables. Everything is decided from keys, shapes and
types, so no network is built and torchvision is not imported. `models/blocks.py` has the table of
networks; in a network that is not in it every weight is a layer of its own.

Every matrix (a tensor of two or more dimensions) is accounted for: it counts, is known not to
count, lies outside the network, or is a fault of the file.
"""

import fnmatch
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from .blocks import (
    AUXILIARY,
    FAMILIES,
    HEAD,
    PAPER,
    REWRITTEN,
    STEM,
    UNKNOWN,
    Family,
    Group,
    find_modules,
    natural,
)
from .complete import missing_parts

Shapes = Mapping[str, tuple[int, ...]]
STRANGER = "outside the network"


class Layer(NamedTuple):
    """One point of the figure: its name and the keys of its weights."""

    name: str
    tensors: tuple[str, ...]
    is_classifier: bool = False


class Choice(NamedTuple):
    """What the command line says about the layers of all files.

    head: module of the classifier, "none" for a network without one; None: to be recognised.
    ignore: shell patterns of keys that do not count.
    """

    head: str | None = None
    ignore: tuple[str, ...] = ()


NO_CHOICE = Choice()


class Partition(NamedTuple):
    """The layers of one file, in network order, the classifier last if it is listed.

    shapes: key -> shape of every floating-point tensor, in file order.
    types: key -> type of every other tensor.
    choice: what was chosen and not recognised.
    in_order: whether the file keeps the order of the network's modules.
    row: of the table of networks, or UNKNOWN.
    head: module of the classifier, "" for a backbone without one.
    head_is_guess: the last weight of the file is taken for that of the classifier.
    blocks: keys of all tensors in stem, blocks and transitions.
    left_out: key of a matrix -> reason why it does not count.
    faults: tensors that nothing is known about, a line each.
    missing: what the file lacks, a line each.
    """

    shapes: Shapes
    types: Mapping[str, str]
    choice: Choice
    in_order: bool
    row: Family
    layers: tuple[Layer, ...]
    head: str
    head_is_guess: bool
    blocks: frozenset[str]
    left_out: Mapping[str, str]
    faults: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def family(self) -> str:
        """Name of the row, "" for an unknown network."""
        return self.row.name

    @property
    def counted(self) -> list[str]:
        """Keys of all weights of the layers without the classifier."""
        return [key for x in self.layers if not x.is_classifier for key in x.tensors]

    @property
    def strangers(self) -> list[str]:
        """Keys of the matrices outside the network."""
        return [key for key, reason in self.left_out.items() if reason == STRANGER]


def is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether a tensor can be a weight: two or more dimensions, and not empty."""
    return len(shape) >= 2 and 0 not in shape


def is_scale(shape: tuple[int, ...]) -> bool:
    """Whether a tensor only scales or shifts elements: all dimensions but one are 1."""
    return sum(n > 1 for n in shape) <= 1


def is_linear(shape: tuple[int, ...]) -> bool:
    """Whether a weight can be that of a linear map or of a 1 x 1 convolution."""
    return len(shape) >= 2 and set(shape[2:]) <= {1}


def module_of(key: str) -> str:
    """Return the module that owns the tensor `key`."""
    return key.rpartition(".")[0]


def in_module(key: str, module: str) -> bool:
    """Whether the tensor `key` belongs to `module` or to one of its children."""
    return key.startswith(module + ".")


def partition(
    shapes: Shapes,
    types: Mapping[str, str] | None = None,
    choice: Choice = NO_CHOICE,
    *,
    in_order: bool = True,
) -> Partition:
    """Group the weights of a network into layers.

    shapes: key -> shape of every floating-point tensor. types: key -> type of every other tensor.
    in_order: whether the keys come in the order of the network's modules.
    """
    # Sorted keys come from a container that keeps no order.
    in_order = in_order and list(shapes) != sorted(shapes)
    keys = "\n".join(shapes)
    rows = [x for x in FAMILIES if re.search(f"^(?:{x.known_by})", keys, re.MULTILINE)]
    attempts = (
        divide(shapes, types or {}, choice, in_order, family) for family in rows or [UNKNOWN]
    )
    return min(attempts, key=lambda x: len(x.faults) + len(x.missing) + len(x.strangers))


def divide(
    shapes: Shapes, types: Mapping[str, str], choice: Choice, in_order: bool, family: Family
) -> Partition:
    """Return the partition by one row of the table."""
    groups = find_modules([*shapes, *types], family)
    blocks = frozenset(key for x in groups for key in x.ends.values())
    weights, left_out, faults = sort_out(shapes, types, choice, family, blocks)

    outside = [key for key in weights if key not in blocks]
    if family is not UNKNOWN or not in_order:
        # Stem first, classifier last.
        outside.sort(key=lambda key: (root_of(key) != "", not re.match(STEM, key), natural(key)))
    head = find_head(shapes, weights if choice.head else outside, choice, family)
    is_guess = not head and choice.head is None and family is UNKNOWN and in_order and bool(outside)
    if is_guess:
        head = outside[-1]
    heads = [head] if head else []
    if family.head and in_module(head, family.head):
        heads = [key for key in outside if in_module(key, family.head)]

    layers = [*layers_of_blocks(groups, {*weights} - {*heads}, family)]
    for key in outside:
        reason = "" if key in heads else reason_outside(key, shapes[key], root_of(head), family)
        if reason:
            left_out[key] = reason
        elif key not in heads:
            layers.append(Layer(key, (key,)))
    if heads and family.lists_classifier:
        name = family.head if family.head and in_module(head, family.head) else head
        layers.append(Layer(name, tuple(heads), is_classifier=True))
    else:
        left_out |= dict.fromkeys(heads, "classifier")
    missing = missing_parts([*shapes, *types], groups, {*weights}, left_out, family)
    return Partition(
        shapes=shapes,
        types=types,
        choice=choice,
        in_order=in_order,
        row=family,
        layers=tuple(layers),
        head=module_of(head),
        head_is_guess=is_guess,
        blocks=blocks,
        left_out=left_out,
        faults=tuple(faults),
        missing=tuple(missing),
    )


def sort_out(
    shapes: Shapes,
    types: Mapping[str, str],
    choice: Choice,
    family: Family,
    blocks: Collection[str],
) -> tuple[list[str], dict[str, str], list[str]]:
    """Return the keys of weights, those that do not count with the reason, and faults."""
    weights, left_out, faults = [], {}, []
    for key in (*shapes, *types):
        if any(fnmatch.fnmatchcase(key, pattern) for pattern in choice.ignore):
            left_out[key] = "ignored"
        elif key in types:
            if key.endswith("weight"):
                faults.append(f"{key} is {types[key]}; dequantise the file first")
        elif is_matrix(shapes[key]):
            counts = re.fullmatch(family.counts, key)
            rewritten = next(
                (x for x, pattern in REWRITTEN.items() if re.fullmatch(pattern, key)), ""
            )
            reason = next(
                (x for x, pattern in family.skips.items() if re.fullmatch(pattern, key)), ""
            )
            if not reason and is_scale(shapes[key]) and key in blocks and family not in PAPER:
                reason = "scale"
            if rewritten:
                faults.append(f"{key} {rewritten}")
            elif reason:
                left_out[key] = reason
            elif counts or (key not in blocks and key.endswith("weight")):
                weights.append(key)
            elif is_scale(shapes[key]):
                left_out[key] = "scale"
            elif family is UNKNOWN or key in blocks:
                faults.append(f"{key} {[*shapes[key]]} is not known to be a weight or none")
            else:
                left_out[key] = STRANGER
    return weights, left_out, faults


def reason_outside(key: str, shape: tuple[int, ...], root: str, family: Family) -> str:
    """Return why a weight outside the blocks is no layer, "" for one that is.

    root: outermost module of the classifier.
    """
    if any(re.fullmatch(AUXILIARY, part) for part in key.split(".")):
        return "auxiliary classifier"
    if is_scale(shape):
        return "scale"
    if root and in_module(key, root):
        return "" if family.lists_classifier else "classifier"
    return "" if family is UNKNOWN else STRANGER


def layers_of_blocks(
    groups: Iterable[Group], weights: Collection[str], family: Family
) -> Iterable[Layer]:
    """Yield the layers that the table has a path for."""
    for x in groups:
        keys = sorted((key for key in x.ends.values() if key in weights), key=natural)
        if keys:
            name = keys[0] if len(keys) == 1 and family not in PAPER else x.name
            yield Layer(name, tuple(keys))


def find_head(shapes: Shapes, keys: list[str], choice: Choice, family: Family) -> str:
    """Return the key of the classifier's weight among `keys`, as its name tells; "" for none."""
    module = choice.head or family.head
    inside = [key for key in keys if module and in_module(key, module)]
    if choice.head or inside:
        own = f"{module}.weight"
        return own if own in inside else max(inside, key=natural, default="")
    ranked: dict[tuple[int, int], list[str]] = {}
    for key in keys:
        parts = module_of(key).split(".")
        words = [i for i, part in enumerate(parts) if re.fullmatch(HEAD, part)]
        if not words or not is_linear(shapes[key]):
            continue
        # Behind a number the word is that of one layer among many, as in layers.3.linear.
        among_many = any(map(str.isdecimal, parts[: words[0]]))
        if not among_many and not any(re.fullmatch(AUXILIARY, part) for part in parts):
            ranked.setdefault((-len(words), len(parts)), []).append(key)
    best = ranked[min(ranked)] if ranked else []
    # Of fc1, fc2 and fc3 it is the last one; other names do not tell which comes last.
    alike = len({re.sub(r"\d+", "", key) for key in best}) == 1
    return max(best, key=natural) if alike else ""


def root_of(key: str) -> str:
    """Return the outermost module of a key that is named like a classifier."""
    parts = module_of(key).split(".")
    for i, part in enumerate(parts, start=1):
        if re.fullmatch(HEAD, part):
            return ".".join(parts[:i])
    return ""


def num_classes(grouped: Partition) -> int | None:
    """Return the number of outputs of the classifier, None for a network without one."""
    return next(iter(grouped.shapes.get(f"{grouped.head}.weight", ())), None)


def identify(grouped: Partition) -> str:
    """Return the name of the architecture, or a description of one without a known name."""
    family, shapes = grouped.family, grouped.shapes
    if not family:
        return "an unknown network"
    layers = [layer for layer in grouped.layers if not layer.is_classifier]
    if grouped.row not in PAPER or not layers:
        return family
    first, block = shapes[layers[0].tensors[0]], [shapes[key] for key in layers[-1].tensors]
    depths = Counter(layer.name.rpartition(".")[0] for layer in layers)
    if family == "ResNet":
        del depths[""]  # conv1
        # A grouped convolution sees only its share of the channels of the one before it.
        groups = block[0][0] // block[1][1] if len(block) > 1 and block[1][1] else 1
        sizes = (*depths.values(), len(block), first[0], block[0][0], groups)
    elif family == "DenseNet":
        depths = {name: n for name, n in depths.items() if "block" in name}
        sizes = (*depths.values(), first[0], block[-1][0])
    else:
        patch = (shapes.get("conv_proj.weight") or (0,))[-1]
        # The first weight is that of mlp.0. Other tokens make another network of the same blocks.
        sizes = (len(layers), first[0], patch)
        if any(re.fullmatch(r"(dist|reg)_token", key) for key in shapes):
            sizes = ()
    blocks = ", ".join(map(str, depths.values()))
    return KNOWN_SIZES.get(sizes, f"a {family} of {blocks} blocks")


def has_unknown_depth(grouped: Partition) -> bool:
    """Whether a ResNet or DenseNet has stages, but not as many blocks in each as any known one."""
    numbers = tuple(map(int, re.findall(r"\d+", identify(grouped))))
    described = grouped.row in PAPER and identify(grouped) not in KNOWN_SIZES.values()
    return (
        described
        and len(numbers) > 1
        and not any(sizes[: len(sizes) - k] == numbers for sizes in KNOWN_SIZES for k in (2, 4))
    )


def contradicts(arch: str, grouped: Partition) -> bool:
    """Whether a network cannot be `arch`: its keys tell another name, or would tell that one."""
    names = {*KNOWN_SIZES.values()}
    recognised = identify(grouped)
    return recognised != arch and (recognised in names or arch in names)


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
