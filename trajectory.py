"""T along the way of fine-tuning: step 3 on the parameters of the moment, after every epoch."""

from pathlib import Path
from typing import Any

from torch import nn

from cal_transferability import measure
from measurement.parameters import read_r
from models import checkpoint
from models.checkpoint import Checkpoint
from safe_io import InputError, warn
from training.record import Measure


def along_the_way(path_r: Path, theta_a: Checkpoint, model: nn.Module) -> Measure:
    """A function that measures the parameters that `model` has when it is called.

    Raises InputError where theta_r is theta_A, or of another network.
    """
    if checkpoint.sha256(path_r) == checkpoint.sha256(theta_a.path):
        raise InputError(f"-r {path_r} and -a {theta_a.path} hold the same; check -r")
    theta_r = read_r(path_r, theta_a)

    def measure_now() -> tuple[float | None, list[dict[str, Any]]]:
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
