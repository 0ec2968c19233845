"""Which network a file is of, and whether files are of one network."""

from pathlib import Path

import torch

from console import InputError, offer

from . import ARCHS, TIMM, TORCHVISION, build
from .checkpoint import Checkpoint, shapes_of
from .layers import (
    Layer,
    Partition,
    Shapes,
    identify,
    in_module,
    is_matrix,
    module_of,
    partition,
)


def check_same_network(a: Partition, other: Partition, *, name_a: str, name_other: str) -> None:
    """Raise InputError unless both files hold the same counted weights, with the same shapes.

    The message names both networks as far as they are known, and the first tensor that differs.
    Classifiers are not compared: downstream tasks have other numbers of classes.
    """
    a, other, further = agree_on_head(a, other)
    keys_a = [key for key in a.counted if key not in further and not is_optional(key, a, other)]
    keys_other = [k for k in other.counted if k not in further and not is_optional(k, other, a)]
    start = f"{name_a} ({identify(a)}) and {name_other} ({identify(other)}) are different networks"
    for key in [*keys_a, *keys_other]:
        for file, name in ((a, name_a), (other, name_other)):
            if key in file.types:
                raise InputError(f"{name}: {key} is {file.types[key]}; dequantise the file first")
    if keys_a and keys_other and not {*keys_a} & {*keys_other}:
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


def is_optional(key: str, owner: Partition, other: Partition) -> bool:
    """Whether a weight belongs to the head of a known network, and the other file has none such."""
    return owner.family and key not in owner.blocks and key not in other.shapes


def layers_to_compare(r: Partition, a: Partition, b: Partition) -> tuple[list[Layer], list[str]]:
    """Return the layers to measure in network order, and the weights of further classifiers.

    r, a, b: of theta_r, theta_A, theta_FB, which are of one network (`check_same_network`). The
    names are those of A, and the classifier is the last layer if B has one. Raises InputError where
    nothing tells which layer is the classifier.
    """
    further = agree_on_head(a, r)[2]
    a, b, more = agree_on_head(a, b)
    if not a.family and not a.head and a.choice.head is None:
        raise InputError(
            "nothing tells which weight is that of the classifier"
            + offer("; add --head MODULE, or --head none if there is none")
            + " (python -m models FILE lists the weights)"
        )
    further = list(dict.fromkeys([*further, *more]))
    layers = [
        x
        for x in a.layers
        if not x.is_classifier
        and not {*x.tensors} & {*further}
        and not any(is_optional(key, a, other) for other in (r, b) for key in x.tensors)
    ]
    if not a.family:
        # The order of the first file that keeps one.
        order = next((x for x in (a, b, r) if x.in_order), None)
        if order:
            places = {key: place for place, key in enumerate(order.shapes)}
            layers.sort(key=lambda x: places.get(x.tensors[0], len(places)))
    layers += [x for x in b.layers if x.is_classifier]
    return layers, further


def agree_on_head(a: Partition, other: Partition) -> tuple[Partition, Partition, list[str]]:
    """Return both partitions with one classifier, and the weights of further classifiers.

    A classifier shows by another number of outputs in `a` than in `other`. Raises InputError where
    several weights do, none of which is named like a classifier.
    """
    if a.choice.head:
        return a, other, []
    differing = [
        key
        for key, shape in a.shapes.items()
        if key not in a.blocks | other.blocks
        and is_matrix(shape)
        and is_matrix(other.shapes.get(key, ()))
        and key.endswith("weight")
        and shape[0] != other.shapes[key][0]
        and shape[1:] == other.shapes[key][1:]
    ]
    modules = [module_of(key) for key in differing]
    if not differing:
        # A network that is not known has one classifier in both files, if need be the last of A.
        named = [x.head for x in (a, other) if x.head and not x.head_is_guess]
        module = (*named, a.head, other.head)[0]
        if a.family or not module:
            return a, other, []
    elif a.head in modules and not a.head_is_guess:
        module = a.head
    elif len(modules) == 1:
        (module,) = modules
    elif has_other_shapes(a, other):
        return a, other, []
    else:
        raise InputError(
            f"{' and '.join(modules)} have other numbers of outputs in the files"
            + offer("; add --head MODULE for the one that is the classifier")
        )
    further = [key for key in differing if module_of(key) != module]
    return with_head(a, module), with_head(other, module), further


def has_other_shapes(a: Partition, other: Partition) -> bool:
    """Whether weights of two files differ in more than the number of outputs."""
    return any(shape[1:] != other.shapes.get(key, shape)[1:] for key, shape in a.shapes.items())


def with_head(grouped: Partition, module: str) -> Partition:
    """Return the partition with `module` as the classifier."""
    if module == grouped.head:
        return grouped
    choice = grouped.choice._replace(head=module)
    return partition(grouped.shapes, grouped.types, choice, in_order=grouped.in_order)


def architecture(theta: Checkpoint, wanted: str | None) -> str:
    """Return the name of theta's network (one of ARCHS or timm/NAME), recognised from its keys.

    wanted: name on the command line or None; needed where the keys are not recognised. Raises
    InputError if it contradicts them, or is missing.
    """
    recognised = theta.network
    if recognised in ARCHS and wanted in ARCHS and wanted != recognised:
        raise InputError(f"{theta.path} is a {recognised}, not a {wanted}; leave --arch out")
    arch = wanted or recognised
    if arch not in ARCHS and not arch.startswith(TIMM):
        raise InputError(f"{theta.path} is of no known network{offer('; name it with --arch')}")
    return arch


def check_architecture(theta: Checkpoint, arch: str) -> None:
    """Raise InputError where theta is of another network than `arch` (one of ARCHS or timm/NAME).

    Where the keys do not tell the name, `arch` is built to compare its weights.
    """
    if architecture(theta, arch) == theta.network:
        return
    try:
        with torch.device("meta"):
            tensors = build(arch).state_dict()
    except NotImplementedError:
        tensors = build(arch).state_dict()
    other = Checkpoint(Path(arch), tensors, "").like(theta)
    check_same_network(
        theta.partition, other.partition, name_a=str(theta.path), name_other=f"--arch {arch}"
    )


def advice(theta: Checkpoint, arch: str) -> str:
    """Return the end of a message on a file that does not fit `arch`: which --arch it is of.

    "" where that is not the reason, or where no name is known ("").
    """
    if arch in ("", theta.network):
        return ""
    right = theta.network if theta.network in ARCHS else find_architecture(theta.shapes)
    if right and right != arch:
        return offer(f"; add --arch {right}")
    return offer("; name its network with --arch (one of timm: timm/NAME)")


def find_architecture(shapes: Shapes) -> str | None:
    """Return the network of torchvision that has these tensors, None if there is none.

    Networks are built without memory for their parameters, in about ten seconds all together.
    """
    kinds: dict[str, bool] = {}
    for arch in TORCHVISION:
        # The first one shows whether others of its kind can fit.
        kind = arch.partition("_")[0].rstrip("0123456789")
        if not kinds.get(kind, True):
            continue
        try:
            with torch.device("meta"):
                own = shapes_of(build(arch).state_dict())
        except NotImplementedError:  # RegNets compute with tensors when they are built
            continue
        kinds.setdefault(kind, not own.keys().isdisjoint(shapes))
        head = partition(own).head
        if all(shapes.get(key) == own[key] for key in own if not in_module(key, head)):
            return arch
    return None
