"""T along the way of fine-tuning: step 3 on the parameters of the moment, after every epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from console import InputError, warn
from models.checkpoint import Checkpoint
from models.pretrained import check_finite
from safe_io import sha256

from .inputs import read_r
from .results import Result


def along_the_way(
    measure: Callable[..., Result],
    path_r: Path,
    theta_a: Checkpoint,
    model: nn.Module,
) -> Callable[[], tuple[float | None, list[dict[str, Any]]]]:
    """A function that gives T of the parameters that `model` has when it is called.

    measure: of step 3. The function returns the overall T (None while there is none) and a row per
    layer.

    Raises InputError where theta_r is theta_A, or of another network.
    """
    if sha256(path_r) == sha256(theta_a.path):
        raise InputError(f"-r {path_r} and -a {theta_a.path} hold the same; check -r")
    theta_r = read_r(path_r, theta_a)
    check_finite(theta_r)
    pairs: dict = {}  # sums of theta_r and theta_A, computed once

    def measure_now() -> tuple[float | None, list[dict[str, Any]]]:
        tensors = {key: value.detach().cpu() for key, value in model.state_dict().items()}
        theta_b = Checkpoint(Path("the network"), tensors, "")
        try:
            result = measure(theta_r, theta_a, theta_b, pairs=pairs)
        except InputError as error:
            warn(f"T is not measured in this epoch: {error}")
            return None, []
        layers = [
            {
                "layer": x.layer.name,
                "distance_r_b": x.distance_r_b,
                "distance_a_b": x.distance_a_b,
                "transferability": x.transferability,
            }
            for x in result.layers
        ]
        return result.transferability, layers

    return measure_now
