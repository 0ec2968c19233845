"""Networks of timm, under its names and with its keys, where that package is installed."""

import difflib
import sys
from collections.abc import Mapping

from torch import Tensor, nn

from console import InputError


def check(name: str) -> None:
    """Raise InputError where timm is not installed, or has no network `name`."""
    try:
        import timm
    except ImportError as error:
        raise InputError(
            f"timm/{name} needs the package timm: pip install -r requirements-networks.txt"
        ) from error
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5)
        hint = f"; did you mean {', '.join(close)}?" if close else "; see timm.list_models()"
        raise InputError(f"timm {timm.__version__} has no network {name!r}{hint}")


def fixed_image_size(name: str) -> int | None:
    """Return the image size of a network built for a fixed one, None for the others."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    return config.input_size[-1] if config and config.fixed_input_size else None


def build(name: str, num_classes: int, *, image_size: int) -> nn.Module:
    """Build a network with timm's random initialisation, drawn from torch's global generator.

    Input: images [N, 3, H, W]. Output: logits [N, num_classes]. Raises InputError where timm cannot
    build it.
    """
    check(name)
    import timm

    options = {"img_size": image_size} if fixed_image_size(name) else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=num_classes, **options)
    except Exception as error:
        # Each network has its own demands, and its own exceptions.
        size = f" for image size {image_size}" if options else ""
        raise InputError(f"timm/{name} cannot be built{size}: {error}") from error


def heads(model: nn.Module) -> list[str]:
    """Return the modules of the classifiers of a network of timm; [] for another network."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return [names] if isinstance(names, str) else list(names)


def converted(tensors: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors as timm loads them into its own network.

    Keys of the network's first release are renamed, position embeddings interpolated. Raises
    InputError where timm cannot do that.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if not heads(model) or convert is None:
        return dict(tensors)
    try:
        return dict(convert(dict(tensors), model))
    except Exception as error:
        # It is made for files of one network, and may raise anything for another.
        raise InputError(f"timm cannot convert it ({type(error).__name__}: {error})") from error
