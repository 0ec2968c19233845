"""Results of step 3: T of every layer, mean and spread over seeds; the record beside a file."""

import csv
import functools
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from console import warn
from models.layers import Layer
from safe_io import sha256, sibling

from .companions import Companions, left_by_decay

# Entries of X.json and X.csv without which two results cannot be compared; names as in JSON.
RECORD = (
    "dataset",
    "classes",
    "train_images",
    "labels",
    "image_size",
    "optimizer",
    "steps",
    "epochs",
    "sum_lr",
    "sum_lr_kept",
    "kept_epoch",
    "lr",
    "batch_size",
    "last_batch",
    "weight_decay",
    "processes",
    "kept",
    "val_acc",
    "train_loss",
)
# Without these a record is none.
REQUIRED = {"steps": int, "epochs": int, "kept": str, "kept_epoch": int, "train_loss": float}


class LayerResult(NamedTuple):
    """Transferability of one layer, the distances behind it and its companions.

    Distances and companions are None for the classifier.

    Distances are in [0, inf); T is too, but infinite for a layer that did not move, and nan for one
    that theta_r, theta_A and theta_FB have alike.
    """

    layer: Layer
    distance_r_b: float | None
    distance_a_b: float | None
    distance_r_a: float | None
    transferability: float
    companions: Companions | None = None

    @property
    def moved(self) -> bool:
        """Whether the value is finite: fine-tuning has moved the layer."""
        return math.isfinite(self.transferability)

    @property
    def in_mean(self) -> bool:
        """The classifier is new, and a layer that did not move has no finite value."""
        return self.moved and not self.layer.is_classifier


class Result(NamedTuple):
    """One theta_FB: its layers in network order, and its weights one by one if wanted.

    b: its file; None for parameters that were never in one.
    """

    b: Path | None
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

    def companion(self, name: str) -> float | None:
        """Arithmetic mean of a companion over the layers that count; None where none has it.

        name: rotation (degrees), t_angle, left_of_r or shrinkage, of `Companions`.
        """
        values = [getattr(x.companions, name) for x in self.layers if x.in_mean and x.companions]
        finite = [value for value in values if value is not None and math.isfinite(value)]
        return statistics.fmean(finite) if finite else None

    @property
    def rotation(self) -> float | None:
        """Mean angle between theta_A and theta_FB, in degrees."""
        return self.companion("rotation")

    @property
    def t_angle(self) -> float | None:
        """Mean of T_angle."""
        return self.companion("t_angle")


class Group(NamedTuple):
    """Several seeds of one experiment: mean and sample standard deviation over the files.

    names, means, deviations: of every layer, in network order. transferability, deviation: of the
    overall T. agreements: layer -> agreement of the seeds (see `companions.Agreement`), of the
    layers that count.
    """

    names: list[str]
    means: list[float]
    deviations: list[float]
    transferability: float
    deviation: float
    count: int
    agreements: Mapping[str, float]

    @property
    def agreement(self) -> float | None:
        """Mean agreement of the seeds over the layers; None where no layer moved in two files."""
        return statistics.fmean(self.agreements.values()) if self.agreements else None


def group(results: list[Result], agreements: Mapping[str, float] | None = None) -> Group:
    """Mean and spread over files that are seeds of one experiment (see `checks.check_seeds`)."""
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
        agreements=dict(agreements or {}),
    )


def companions_of_file(result: Result, path_a: Path) -> dict[str, float | None]:
    """Means of the companions over the layers that count, beside what weight decay predicts.

    The predictions need the records of theta_A (`path_a`: its file) and of theta_FB; else None.
    """
    return {
        "rotation": result.rotation,
        "t_angle": result.t_angle,
        "left_of_r": result.companion("left_of_r"),
        "left_of_r_predicted": predicted_by_decay(path_a),
        "shrinkage": result.companion("shrinkage"),
        "shrinkage_predicted": predicted_by_decay(result.b) if result.b else None,
    }


def predicted_by_decay(path: Path) -> float | None:
    """Share of its start that weight decay alone leaves in a file; None without its record."""
    record = read_record(path)
    needed = [record.get(key) for key in ("weight_decay", "sum_lr_kept", "optimizer")]
    return None if None in needed else left_by_decay(*needed)


@functools.cache
def read_record(path: Path) -> dict[str, Any]:
    """The record beside X.pth: X.json of the run that wrote it, with every entry of RECORD.

    {} where there is none that speaks of this file. An entry that an older record lacks is None:
    unknown. Remembered, so that the file is hashed once and a warning comes once.
    """
    file = sibling(path, ".json")
    if not file.is_file():
        # Of a link, the record may lie beside what it points at.
        path = path.resolve()
        file = sibling(path, ".json")
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        same = content["sha256"] == sha256(path)
        record = {**content, **{key: type_(content[key]) for key, type_ in REQUIRED.items()}}
        record |= comparable(record)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        warn(f"{file} is not the record of a training run; it is ignored")
        return {}
    if not same:
        warn(f"{file} is the record of another file than {path} (SHA-256); it is ignored")
        return {}
    if record["sum_lr_kept"] is None:
        record["sum_lr_kept"] = rates_until(sibling(path, ".csv"), record["kept_epoch"])
    return record


def comparable(content: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of RECORD: from the arguments of the run or its results, in plain types.

    class_names: the names, of which `classes` is the number. Raises TypeError or ValueError where
    one is of another type.
    """
    args = content.get("args")
    entries = {**(args if isinstance(args, dict) else {}), **content}
    chosen = {key: entries.get(key) for key in (*RECORD, "freeze")}
    chosen["class_names"] = [str(name) for name in entries.get("classes") or ()]
    chosen["classes"] = len(chosen["class_names"]) or None
    size = chosen["image_size"]
    if size is not None and (type(size) is not int or size < 1):
        raise ValueError(f"image_size {size!r}")
    chosen["labels"] = entries.get("labels") or "true"
    for key in ("sum_lr", "lr", "weight_decay", "val_acc"):
        chosen[key] = None if chosen[key] is None else float(chosen[key])
    # The last epoch has all the rates of the run.
    chosen["sum_lr_kept"] = chosen["sum_lr"] if content["kept_epoch"] == content["epochs"] else None
    return chosen


def rates_until(file: Path, epoch: int) -> float | None:
    """Sum of the learning rates up to the end of an epoch, from X.csv; None without that row."""
    try:
        with open(file, newline="", encoding="utf-8") as rows:
            sums = [row["sum_lr"] for row in csv.DictReader(rows) if int(row["epoch"]) == epoch]
        return float(sums[0])
    except (OSError, ValueError, KeyError, TypeError, IndexError, csv.Error):
        return None
