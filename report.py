"""What step 3 found: the structures, and how they are printed, stored and drawn."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from models import checkpoint
from models.layers import Layer
from safe_io import InputError, atomic_path, warn

# What is read of X.json.
RECORD_TYPES = {
    "steps": int,
    "epochs": int,
    "kept": str,
    "kept_epoch": int,
    "train_loss": float,
    "val_acc": float,
    "parent_sha256": str,
}


class LayerResult(NamedTuple):
    """Transferability of one layer and the distances behind it (None for the classifier)."""

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
        values = [x.transferability for x in self.layers if x.in_mean]
        return sum(values) / len(values)

    @property
    def geometric_mean(self) -> float:
        """Geometric mean over the same layers; 0 if one of them ended where theta_r was."""
        values = [x.transferability for x in self.layers if x.in_mean]
        return math.exp(sum(map(math.log, values)) / len(values)) if all(values) else 0.0


def print_result(result: Result) -> None:
    """Print the layer-wise list, the mean, and how the file was trained where that is known."""
    for x in result.tensors:
        print(
            f"{x.layer.name:40} T {x.transferability:8.2f}  "
            f"D(r, B) {x.distance_r_b:.6g}  D(A, B) {x.distance_a_b:.6g}"
        )
    values = [round(x.transferability, 2) for x in result.layers]
    print(f"Layer-wise transferability:  {values}")

    count = sum(x.in_mean for x in result.layers)
    still = [x.layer.name for x in result.layers if not x.moved]
    layers = f"{count} of {count + len(still)} layers" if still else f"{count} layers"
    new = any(x.layer.is_classifier for x in result.layers)
    ending = "; the classifier is new and left out" if new else ""
    print(f"Transferability: {result.transferability:.2f} (mean over {layers}{ending})")
    if still:
        warn(
            f"{', '.join(still)} did not move in {result.b}: mean over {layers}; "
            "not comparable with a full fine-tuning"
        )
    record = read_record(result.b)
    if record:
        print(
            f"Fine-tuning: {record['steps']} steps in {record['epochs']} epochs, {record['kept']} "
            f"epoch kept ({record['kept_epoch']}), training loss {record['train_loss']:.4f}, "
            f"validation accuracy {record['val_acc']:.2f} %"
        )


def read_record(path: Path) -> dict[str, Any]:
    """X.json of the run that wrote X.pth, or {} where there is none that speaks of this file."""
    file = path.with_name(path.name.removesuffix(".pth") + ".json")
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        same = record["sha256"] == checkpoint.sha256(path)
        for key, type_ in RECORD_TYPES.items():
            record[key] = type_(record[key])
    except (OSError, ValueError, KeyError, TypeError):
        warn(f"{file} is not the record of a training run; it is ignored")
        return {}
    if not same:
        warn(f"{file} is the record of another file than {path} (SHA-256); it is ignored")
    return record if same else {}


def warn_of_other_parent(child: Path, parent: Path) -> None:
    """Warn where the record beside `child` says that it was trained from another file."""
    recorded = read_record(child).get("parent_sha256")
    if recorded is not None and recorded != checkpoint.sha256(parent):
        warn(f"{child} was not trained from {parent} (SHA-256); T would be wrong: check the files")


def to_json(results: list[Result], *, arch: str, r: Path, a: Path) -> str:
    """Everything, unrounded. Infinite values are strings ("inf"), for JSON has no number for
    them.
    """
    found = []
    for result in results:
        entry = {
            "b": str(result.b),
            "transferability": result.transferability,
            "geometric_mean": result.geometric_mean,
            "layers": [layer_json(x) for x in result.layers],
        }
        if result.tensors:
            entry["tensors"] = [layer_json(x) for x in result.tensors]
        found.append(entry)
    content = {
        "arch": arch,
        "r": str(r),
        "a": str(a),
        "r_is_substitute": False,
        "results": found,
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def layer_json(x: LayerResult) -> dict[str, Any]:
    """One layer for the JSON file."""
    return {
        "name": x.layer.name,
        "tensors": list(x.layer.tensors),
        "distance_r_b": x.distance_r_b,
        "distance_a_b": x.distance_a_b,
        "distance_r_a": x.distance_r_a,
        "transferability": x.transferability if x.moved else str(x.transferability),
        "in_mean": x.in_mean,
    }


def draw(results: list[Result], path: Path | None, *, show: bool) -> None:
    """Draw a panel of T over the layers for every file; write it to `path` and show it, if wanted.

    Raises InputError for a format that matplotlib cannot write.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise InputError(
            f"no figure drawn: {error}; install matplotlib or add --no_plot"
        ) from error

    columns = min(len(results), 3)
    rows = -(-len(results) // columns)
    if show:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    else:
        figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    for i, result in enumerate(results):
        axes = figure.add_subplot(rows, columns, i + 1)
        values = [x.transferability if x.moved else math.nan for x in result.layers]
        axes.plot(range(1, len(values) + 1), values, marker="o", markersize=4)
        axes.axhline(1.0, color="0.6", linewidth=0.8, linestyle="--")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("Block")
        axes.set_ylabel(r"$T_{FB}(\theta_A)$")
        axes.set_title(f"{result.b.stem} (mean {result.transferability:.2f})")
    if path is not None:
        format_ = path.suffix.removeprefix(".").lower() or "png"
        known = figure.canvas.get_supported_filetypes()
        if format_ not in known:
            raise InputError(f"--plot {path}: no such format; one of {', '.join(sorted(known))}")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=format_, dpi=150)
    if show:
        pyplot.show()
