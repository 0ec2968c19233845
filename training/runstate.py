"""What a run leaves on disk: the kept parameters, X.csv (a row per epoch) and X.json."""

import csv
import io
import json
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from models import checkpoint
from safe_io import atomic_write

COLUMNS = (
    "epoch",
    "step",
    "lr",
    "sum_lr",
    "train_loss",
    "train_acc",
    "val_loss",
    "val_acc",
    "images_per_s",
    "seconds",
)


def beside(path: Path, ending: str) -> Path:
    """The file of the same run beside the checkpoint: X.pth and ".csv" give X.csv."""
    return path.with_name(path.name.removesuffix(".pth") + ending)


class Record:
    """Keeps the parameters that a run is for, and the account of it.

    X.csv is on disk when an epoch ends. X.pth is replaced only when a state to keep is complete,
    and X.json together with it, so that the JSON speaks of the file beside it. With keep="both",
    X.pth and X.json are of the best epoch, X_last.pth and X_last.json of the last.

    facts: what is known before training (script, args, arch, classes, train_images, val_images,
        seed, parent_sha256, device). Accuracies are per cent.
    """

    def __init__(self, path: Path, *, keep: str, facts: Mapping[str, Any]) -> None:
        self.path = path
        self.keep = keep
        self.facts = dict(facts)
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {}
        # Checkpoint -> (its row, its SHA-256, "best" or "last").
        self.kept: dict[Path, tuple[dict[str, Any], str, str]] = {}
        self.start = time.monotonic()
        if path.exists():
            print(f"{path} exists; it is replaced when the first epoch to keep is complete")

    def add(self, row: dict[str, Any], state_dict: Mapping, *, unreadable: int, last: bool) -> None:
        """Account for one epoch.

        row: the columns of X.csv, None where nothing was measured. unreadable: images so far that
        could not be decoded. last: whether the run ends here.
        """
        self.rows.append(row)
        if row["val_acc"] is not None and row["val_acc"] > self.best.get("val_acc", -1):
            self.best = row
            if self.keep != "last":
                self.keep_parameters(self.path, "best", state_dict, unreadable)
        if last and self.keep != "best":
            path = beside(self.path, "_last.pth") if self.keep == "both" else self.path
            self.keep_parameters(path, "last", state_dict, unreadable)
        atomic_write(beside(self.path, ".csv"), self.as_csv())
        if last:
            for path in self.kept:
                self.write_json(path, unreadable, finished=True)

    def keep_parameters(self, path: Path, kept: str, state_dict: Mapping, unreadable: int) -> None:
        """Write the parameters of the newest row, and the JSON that describes them."""
        self.kept[path] = (self.rows[-1], checkpoint.write(path, state_dict), kept)
        self.write_json(path, unreadable, finished=False)

    def write_json(self, path: Path, unreadable: int, *, finished: bool) -> None:
        """Write X.json for the checkpoint X.pth."""
        row, sha256, kept = self.kept[path]
        now = self.rows[-1]
        description = {
            **self.facts,
            "unreadable": unreadable,
            "epochs": now["epoch"],
            "steps": now["step"],
            "sum_lr": now["sum_lr"],
            "kept": kept,
            "kept_epoch": row["epoch"],
            "best_epoch": self.best.get("epoch"),
            "best_val_acc": self.best.get("val_acc"),
            "last_val_acc": now["val_acc"],
            "val_acc": row["val_acc"],
            "train_loss": row["train_loss"],
            "sha256": sha256,
            "versions": versions(),
            "seconds": round(time.monotonic() - self.start, 1),
            "finished": finished,
        }
        atomic_write(beside(path, ".json"), json.dumps(description, indent=1) + "\n")

    def as_csv(self) -> str:
        """All rows so far; numbers in full precision, empty cells where nothing was measured."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    import numpy
    import torchvision

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
    }


def device_name(device: torch.device) -> str:
    """The device in words, for the record."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()}, {torch.get_num_threads()} threads, {sys.platform})"
