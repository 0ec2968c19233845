"""Results of step 3: T of every layer, mean and spread over seeds; the record beside a file."""

import functools
import json
import math
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from console import InputError, warn
from models.layers import Layer
from safe_io import sha256, sibling

# What is read of X.json.
RECORD_TYPES = {
    "steps": int,
    "epochs": int,
    "kept": str,
    "kept_epoch": int,
    "train_loss": float,
    "val_acc": float,
}


class LayerResult(NamedTuple):
    """Transferability of one layer and the distances behind it (None for the classifier).

    Distances are in [0, inf); T is too, but infinite for a layer that did not move, and nan for one
    that theta_r, theta_A and theta_FB have alike.
    """

    layer: Layer
    distance_r_b: float | None
    distance_a_b: float | None
    distance_r_a: float | None
    transferability: float

    @property
    def moved(self) -> bool:
        """Whether the value is finite: fine-tuning has moved the layer."""
        return math.isfinite(self.transferability)

    @property
    def in_mean(self) -> bool:
        """The classifier is new, and a layer that did not move has no finite value."""
        return self.moved and not self.layer.is_classifier


class Result(NamedTuple):
    """One fine-tuned file: its layers in network order, and its weights one by one if wanted."""

    b: Path
    layers: list[LayerResult]
    tensors: list[LayerResult]

    @property
    def transferability(self) -> float:
        """Overall T: unweighted arithmetic mean over the layers that count."""
        return statistics.fmean(self.values())

    @property
    def geometric_mean(self) -> float:
        """Geometric mean over the same layers; 0 if one of them ended where theta_r was."""
        values = self.values()
        return math.exp(statistics.fmean(map(math.log, values))) if all(values) else 0.0

    def values(self) -> list[float]:
        """T of the layers that count."""
        return [x.transferability for x in self.layers if x.in_mean]


class Group(NamedTuple):
    """Several seeds of one experiment: mean and sample standard deviation over the files.

    names, means, deviations: of every layer, in network order. transferability, deviation: of the
    overall T.
    """

    names: list[str]
    means: list[float]
    deviations: list[float]
    transferability: float
    deviation: float
    count: int


def group(results: list[Result]) -> Group:
    """Mean and spread over files that are seeds of one experiment.

    Raises InputError for less than two, and for files with other layers.
    """
    if len(results) < 2:
        raise InputError("--group needs two files at least")
    first = [x.layer.name for x in results[0].layers]
    for result in results:
        if [x.layer.name for x in result.layers] != first:
            raise InputError(
                f"--group: {results[0].b} and {result.b} have other layers, as where only one of "
                "them has a classifier"
            )
    columns = list(zip(*(result.layers for result in results), strict=True))
    values = [[x.transferability for x in column] for column in columns]
    overall = [result.transferability for result in results]
    return Group(
        names=[column[0].layer.name for column in columns],
        means=[statistics.fmean(v) for v in values],
        # A layer that did not move in one of the files has no spread.
        deviations=[
            statistics.stdev(v) if all(map(math.isfinite, v)) else math.nan for v in values
        ],
        transferability=statistics.fmean(overall),
        deviation=statistics.stdev(overall),
        count=len(results),
    )


@functools.cache
def read_record(path: Path) -> dict[str, Any]:
    """X.json of the run that wrote X.pth, or {} where there is none that speaks of this file.

    Remembered, so that the file is hashed once and a warning comes once.
    """
    file = sibling(path, ".json")
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        same = record["sha256"] == sha256(path)
        for key, type_ in RECORD_TYPES.items():
            record[key] = type_(record[key])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        warn(f"{file} is not the record of a training run; it is ignored")
        return {}
    if not same:
        warn(f"{file} is the record of another file than {path} (SHA-256); it is ignored")
    return record if same else {}
