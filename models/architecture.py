"""Which network a file is of, by its keys or by building the networks that it may be."""

from pathlib import Path

import torch

from console import InputError

from . import ARCHS, TIMM, TORCHVISION, build
from .checkpoint import Checkpoint, shapes_of
from .comparison import check_same_network
from .layers import Shapes, in_module, partition


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
        raise InputError(f"{theta.path} is of no known network; name it with --arch")
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
        return f"; add --arch {right}"
    return "; name its network with --arch (one of timm: timm/NAME)"


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
