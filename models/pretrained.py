"""Initialise a network from pre-trained parameters, with a new classifier."""

import fnmatch
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from console import InputError, say, warn
from safe_io import sibling

from . import DEFAULT, from_timm
from .checkpoint import Checkpoint, is_plain, not_finite, shapes_of
from .comparison import advice
from .containers import names
from .dialects import align
from .layers import in_module, partition
from .vit import fit_to_image_size


def check_finite(theta: Checkpoint) -> None:
    """Raise InputError naming the first tensor that holds NaN or infinity, or will in float32."""
    for key, value in theta.tensors.items():
        if not is_plain(value) or torch.isfinite(value.float()).all():
            continue
        if torch.isfinite(value).all():
            raise InputError(f"{theta.path}: {key} holds numbers too large for float32")
        raise InputError(not_finite(theta.path, key))


def load_pretrained(
    model: nn.Module, theta: Checkpoint, *, image_size: int, arch: str = ""
) -> list[str]:
    """Copy all tensors of theta except the classifier into `model`.

    The classifier is initialised anew, as a fresh `nn.Linear` (in SqueezeNet a convolution); its
    keys are returned. arch: name of the network, for messages. Raises InputError as `fitting` does.
    """
    own = model.state_dict()
    heads = heads_of(model)
    for head in heads:
        model.get_submodule(head).reset_parameters()
    model.load_state_dict(
        fitting(theta, model, image_size=image_size, arch=arch, without=heads), strict=False
    )
    return [key for key in own if any(in_module(key, x) for x in heads)]


def heads_of(model: nn.Module) -> list[str]:
    """Return the modules of the classifiers of a network; only timm's have more than one."""
    return from_timm.heads(model) or [partition(shapes_of(model.state_dict())).head]


def fitting(
    theta: Checkpoint,
    model: nn.Module,
    *,
    image_size: int,
    arch: str = "",
    without: Iterable[str] = (),
) -> dict[str, Tensor]:
    """Return theta's tensors for `model`, under its keys, but those of the modules `without`.

    The position embedding of a ViT is interpolated to `image_size` pixels a side. Modules outside
    of the network (auxiliary classifiers, decoders, losses) are left behind, which is said. Raises
    InputError naming the tensor (and both shapes) unless the rest is exactly that of the network: a
    layer that stayed random unnoticed would falsify T. arch: name of the network, for messages.
    """
    check_finite(theta)
    own = model.state_dict()
    tensors = align(theta.tensors, own)
    try:
        fitted = from_timm.converted(fit_to_image_size(tensors, image_size), model)
        resized = [k for k in fitted if k in tensors and fitted[k].shape != tensors[k].shape]
        fitted = {k: v for k, v in fitted.items() if not any(in_module(k, x) for x in without)}
        modules = {key.partition(".")[0] for key in own}
        behind = [key for key in fitted if key.partition(".")[0] not in modules]
        fitted = {key: value for key, value in fitted.items() if key not in behind}
        wanted = [key for key in own if not any(in_module(key, x) for x in without)]
        check_tensors(fitted, {key: own[key] for key in wanted})
    except InputError as error:
        name = f"{arch or 'the network'}{' (the default)' if arch == DEFAULT else ''}"
        raise InputError(
            f"{theta.path} does not fit {name}: {error}{advice(theta, arch)}"
        ) from error
    for key, value in fitted.items():
        if own[key].is_floating_point() and not (is_plain(value) and value.element_size() > 1):
            type_ = str(value.dtype).removeprefix("torch.")
            raise InputError(f"{theta.path}: {key} is {type_}; dequantise the file first")
    if behind:
        warn(f"{theta.path}: outside of the network, and left behind: {names(behind)}")
    if resized:
        say(f"{theta.path}: {names(resized)} interpolated to {image_size} pixels a side")
    # Training runs write one beside what they train.
    if not sibling(theta.path, ".json").is_file():
        say(
            f"{theta.path} has no record of a run beside it; if its weights are public, they were "
            "probably trained on images normalised with mean 0.485, 0.456, 0.406 and deviation "
            "0.229, 0.224, 0.225; here it is 0.5 and 0.225"
        )
    return fitted


def check_tensors(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Raise InputError, without the name of the file, unless the tensors are those of a network.

    own: its state dict.
    """
    # Files from before torch 0.4.1 lack these counters, which nothing here reads.
    wanted = [key for key in own if not key.endswith("num_batches_tracked")]
    missing = [key for key in wanted if key not in tensors]
    if len(missing) == len(wanted):
        raise InputError(f"it has none of the {len(wanted)} tensors of the network")
    if missing:
        raise InputError(f"{missing[0]} is missing ({len(missing)} in all)")
    for key, value in tensors.items():
        if key not in own:
            raise InputError(f"the network has no tensor {key}")
        if value.shape != own[key].shape:
            raise InputError(
                f"{key} is {list(value.shape)} in the file and {list(own[key].shape)} in the "
                "network"
            )


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
