"""What scripts have written as JSON: records, and step 3's profiles of T over the depth."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from console import InputError, warn


def read_json(path: Path, *, advice: str) -> dict[str, Any]:
    """The object in a JSON file of a script; InputError, with advice, where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
        error = ValueError("no object")
    except (OSError, ValueError, RecursionError) as caught:
        error = caught
    raise InputError(f"cannot read {path}: {error}; {advice}") from error


class Profile(NamedTuple):
    """T of one result over the depth, and layer -> T without the classifier, which is new."""

    name: str
    transferability: float
    values: list[float]
    layers: dict[str, float]


def read_profiles(path: Path) -> list[Profile]:
    """The results of a JSON file of step 3; InputError for any other file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        profiles = [read_profile(result) for result in content["results"]]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        raise InputError(
            f"{path} is no JSON file of step 3 (cal_transferability.py --json)"
        ) from error
    if not profiles:
        raise InputError(f"{path} holds no results")
    if content.get("r_is_substitute"):
        warn(f"{path}: theta_r is a substitute; not comparable with values from a true theta_r")
    return profiles


def read_profile(result: dict[str, Any]) -> Profile:
    """One entry of the results; a value that is not finite is stored by its name."""
    values = [float(layer["transferability"]) for layer in result["layers"]]
    layers = {
        layer["name"]: value
        for layer, value in zip(result["layers"], values, strict=True)
        if layer["distance_a_b"] is not None
    }
    if not layers:
        raise ValueError("no layers")
    return Profile(Path(result["b"]).stem, float(result["transferability"]), values, layers)
