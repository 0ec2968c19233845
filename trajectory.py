"""T along the way of fine-tuning: step 3 on the parameters of the moment, after every epoch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

import report
from cal_transferability import measure
from models import checkpoint
from models.checkpoint import Checkpoint
from models.layers import check_same_network
from safe_io import InputError, warn

# Overall T (None where it cannot be measured), and a row per layer.
Measured = tuple[float | None, list[dict[str, Any]]]


def along_the_way(path_r: Path, theta_a: Checkpoint, model: nn.Module) -> Callable[[], Measured]:
    """A function that measures the parameters that `model` has when it is called.

    Raises InputError where theta_r is theta_A, or of another network.
    """
    if checkpoint.sha256(path_r) == checkpoint.sha256(theta_a.path):
        raise InputError(f"-r {path_r} and -a {theta_a.path} hold the same; check -r")
    report.warn_of_other_parent(theta_a.path, path_r)
    theta_r = checkpoint.read(path_r)
    check_same_network(
        theta_a.shapes, theta_r.shapes, name_a=str(theta_a.path), name_other=str(path_r)
    )

    def measure_now() -> Measured:
        tensors = {key: value.detach().cpu() for key, value in model.state_dict().items()}
        try:
            result = measure(theta_r, theta_a, Checkpoint(Path("the network"), tensors, ""))
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
