"""Initialise a network from pre-trained parameters, with a new classifier."""

import fnmatch

from torch import nn

from console import InputError, say

from . import ARCHS
from .checkpoint import Checkpoint
from .layers import AUXILIARY, identify, partition
from .vit import POSITION, fit_to_image_size


def architecture(theta: Checkpoint, wanted: str | None) -> str:
    """Return the name of theta's network (one of ARCHS), recognised from its keys.

    wanted: name on the command line or None; needed where the keys are not recognised. Raises
    InputError if it contradicts them, or is missing.
    """
    recognised = identify(theta.partition)
    if recognised in ARCHS and wanted not in (None, recognised):
        raise InputError(f"{theta.path} is a {recognised}, not a {wanted}; leave --arch out")
    arch = wanted or recognised
    if arch not in ARCHS:
        raise InputError(f"{theta.path} is of no known network; name it with --arch")
    return arch


def load_pretrained(model: nn.Module, checkpoint: Checkpoint, *, image_size: int) -> list[str]:
    """Copy all tensors of `checkpoint` except the classifier into `model`.

    The classifier is initialised anew, as a fresh `nn.Linear` (in SqueezeNet a convolution); its
    keys are returned. The position embedding of a ViT is interpolated to `image_size` pixels a
    side. Auxiliary classifiers of the file are skipped. Raises InputError naming the tensor (and
    both shapes) unless the file holds exactly the tensors of the network: a layer that stayed
    random unnoticed would falsify T.
    """
    own = model.state_dict()
    head = partition({key: tuple(value.shape) for key, value in own.items()}).head
    model.get_submodule(head).reset_parameters()
    tensors = fit_to_image_size(checkpoint.tensors, image_size)
    if tensors is not checkpoint.tensors:
        say(f"{checkpoint.path}: {POSITION} interpolated to {image_size} pixels a side")
    fresh = [key for key in own if key.startswith(head + ".")]
    # Files from before torch 0.4.1 lack these counters, which nothing here reads.
    optional = [key for key in own if key.endswith("num_batches_tracked")]
    wanted = [key for key in own if key not in fresh and key not in optional]
    given = {
        key: value for key, value in tensors.items() if not key.startswith((head + ".", *AUXILIARY))
    }
    where = f"{checkpoint.path} does not fit the network"
    missing = [key for key in wanted if key not in given]
    if len(missing) == len(wanted):
        raise InputError(
            f"{where}: none of its {len(given)} tensors has a name that the network knows"
        )
    if missing:
        raise InputError(f"{where}: {missing[0]} is missing ({len(missing)} in all)")
    for key in given:
        if key not in own:
            raise InputError(f"{where}: the network has no tensor {key}")
        if given[key].shape != own[key].shape:
            raise InputError(
                f"{where}: {key} is {list(given[key].shape)} in the file "
                f"and {list(own[key].shape)} in the network"
            )
    model.load_state_dict(given, strict=False)
    return fresh


def freeze(model: nn.Module, pattern: str | None) -> None:
    """Exclude the parameters whose names match a shell pattern from training (None: none).

    Normalisation still updates its running statistics. Raises InputError if no or every parameter
    matches.
    """
    if pattern is None:
        return
    names = [name for name, _ in model.named_parameters()]
    frozen = fnmatch.filter(names, pattern)
    if not frozen or len(frozen) == len(names):
        count = "no" if not frozen else "every"
        raise InputError(f"--freeze {pattern} matches {count} parameter, such as {names[0]}")
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    say(f"frozen: {len(frozen)} of {len(names)} parameters")
