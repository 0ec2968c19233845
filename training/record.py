"""Outputs of a run: the kept parameters X.pth, X.csv with a row per epoch, and X.json."""

import csv
import functools
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from console import InputError, offer, warn
from datasets.images import ImageArray, ImageFiles, Images
from models import checkpoint
from safe_io import atomic_write, sha256, sibling

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
LAYER_COLUMNS = (
    "epoch",
    "step",
    "sum_lr",
    "layer",
    "distance_r_b",
    "distance_a_b",
    "transferability",
)
# Returns T of the present parameters: overall (None where it is undefined), and a row per layer.
Measure = Callable[[], tuple[float | None, list[dict[str, Any]]]]


def outputs(path: Path, keep: str) -> dict[str, Path]:
    """The checkpoints that a run writes: "best" and "last" -> path."""
    last = sibling(path, "_last.pth") if keep == "both" else path
    return {kept: file for kept, file in (("best", path), ("last", last)) if keep in (kept, "both")}


def refuse_overwriting(inputs: Mapping[str, Path | None], path: Path, *, keep: str) -> None:
    """Raise InputError where a run that writes `path` would overwrite one of its inputs.

    inputs: option -> file. keep: with "both", X_last.pth is written, too.
    """
    for output in outputs(path, keep).values():
        for option, file in inputs.items():
            if file is not None and output.resolve() == file.resolve():
                raise InputError(
                    f"the run would write {output}, which is given as {option}; give another name"
                )


class Record:
    """Rows of all epochs, and the files written from them.

    X.csv is on disk when an epoch ends. X.pth is replaced only when an epoch to keep is complete,
    and X.json together with it, so that the JSON describes the checkpoint. With keep="both", X.pth
    and X.json are of the best epoch, X_last.pth and X_last.json of the last. Accuracies are per
    cent.

    facts: the part of X.json known before training (script, args, arch, classes, train_images,
        val_images, images, seed, parent_sha256, device, processes, last_batch).
    measure: adds a column with the overall T to X.csv, and X_layers.csv with a row per layer
        (LAYER_COLUMNS without the first three).
    """

    def __init__(
        self,
        path: Path,
        *,
        keep: str,
        facts: Mapping[str, Any],
        measure: Measure | None = None,
    ) -> None:
        self.path = path
        self.measure = measure
        self.keep = keep
        self.facts = dict(facts)
        self.rows: list[dict[str, Any]] = []
        # Checkpoint -> (its epoch, its SHA-256, "best" or "last").
        self.kept: dict[Path, tuple[int, str, str]] = {}
        # Checkpoint -> its epoch, where the run has gone back to a state before that.
        self.ahead: dict[Path, int] = {}
        self.start = time.monotonic()

    @property
    def best(self) -> dict[str, Any]:
        """Row of the first epoch with the highest validation accuracy; {} before there is one."""
        validated = [row for row in self.rows if row["val_acc"] is not None]
        return max(validated, key=lambda row: row["val_acc"], default={})

    def add(self, row: dict[str, Any]) -> None:
        """Append the row of an epoch, which has all COLUMNS."""
        if self.measure:
            row["transferability"], row["layers"] = self.measure()
        self.rows.append(row)

    def write(self, state_dict: Mapping, *, unreadable: int, last: bool) -> None:
        """Bring the files up to date with the epoch of the newest row.

        state_dict: parameters and buffers at its end. unreadable: images so far that could not be
        decoded. last: whether the run ends here. Writing twice for one epoch does no harm.
        """
        for kept, path in outputs(self.path, self.keep).items():
            if last if kept == "last" else self.best is self.rows[-1]:
                self.keep_parameters(path, kept, state_dict, unreadable)
        for path, epoch in self.ahead.items():
            if self.rows[-1]["epoch"] >= epoch:
                raise InputError(
                    f"{path} is of epoch {epoch} as it was before the run went back to an older "
                    f"state; that epoch has not come out the same: {start_anew()}"
                )
        columns = (*COLUMNS, *(["transferability"] if self.measure else []))
        atomic_write(sibling(self.path, ".csv"), as_csv(columns, self.rows))
        if self.measure:
            layers = [{**row, **layer} for row in self.rows for layer in row.get("layers", ())]
            atomic_write(sibling(self.path, "_layers.csv"), as_csv(LAYER_COLUMNS, layers))
        if last:
            for path in self.kept:
                self.write_json(path, unreadable, finished=True)

    def keep_parameters(self, path: Path, kept: str, state_dict: Mapping, unreadable: int) -> None:
        """Write the parameters of the newest row, and the JSON that describes them."""
        digest = checkpoint.write(path, state_dict)
        self.ahead.pop(path, None)
        self.kept[path] = (self.rows[-1]["epoch"], digest, kept)
        self.write_json(path, unreadable, finished=False)

    def state(self) -> dict[str, Any]:
        """The content in plain types, for `restore`."""
        kept = {path.name: value for path, value in self.kept.items()}
        return {"rows": self.rows, "kept": kept, "seconds": time.monotonic() - self.start}

    def restore(self, state: Mapping[str, Any], *, at_epoch_end: bool) -> None:
        """Continue from `state`; at the end of an epoch, `write` is called next.

        Raises InputError where a checkpoint kept earlier is gone or changed.
        """
        self.rows = [dict(row) for row in state["rows"]]
        self.start = time.monotonic() - state["seconds"]
        for name, (epoch, digest, kept) in state["kept"].items():
            path = self.path.with_name(name)
            self.kept[path] = (epoch, digest, kept)
            # `write` will replace a file of the newest epoch, and one that this epoch surpasses.
            rewritten = at_epoch_end and (
                epoch == self.rows[-1]["epoch"] or self.best is self.rows[-1]
            )
            if rewritten or (path.is_file() and sha256(path) == digest):
                continue
            later = kept_epoch(path)
            if later <= self.rows[-1]["epoch"]:
                raise InputError(
                    f"{path} is not the file that the run kept at epoch {epoch}; put it back, or "
                    f"{start_anew()}"
                )
            self.ahead[path] = later

    def write_json(self, path: Path, unreadable: int, *, finished: bool) -> None:
        """Write X.json for the checkpoint X.pth."""
        epoch, digest, kept = self.kept[path]
        row, now, best = self.rows[epoch - 1], self.rows[-1], self.best
        description = {
            **self.facts,
            "unreadable": unreadable,
            "epochs": now["epoch"],
            "steps": now["step"],
            "sum_lr": now["sum_lr"],
            "kept": kept,
            "kept_epoch": row["epoch"],
            "best_epoch": best.get("epoch"),
            "best_val_acc": best.get("val_acc"),
            "last_val_acc": now["val_acc"],
            "val_acc": row["val_acc"],
            "train_loss": row["train_loss"],
            "sha256": digest,
            "versions": versions(),
            "seconds": round(time.monotonic() - self.start, 1),
            "finished": finished,
            "code": code_version(),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        atomic_write(sibling(path, ".json"), json.dumps(description, indent=1) + "\n")


def start_anew() -> str:
    """The way out for a run that cannot go on; a study has no --overwrite."""
    return offer("start anew with --overwrite") or "remove the files of the run to start anew"


def kept_epoch(path: Path) -> int:
    """Epoch of a checkpoint by the record beside it; 0 without one, or where that is of another."""
    try:
        record = json.loads(sibling(path, ".json").read_text(encoding="utf-8"))
        return int(record["kept_epoch"]) if record["sha256"] == sha256(path) else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def data_facts(train_set: Images, val_set: Images, classes: Sequence[str]) -> dict[str, Any]:
    """What X.json says of the data: classes, numbers of images, and what tells them from others.

    images: the folder that holds the files of both splits; SHA-256 of their names in it, sizes and
    labels (`files`), which a copy has, too; and of their times of change (`times`). Of pixels in
    memory the bytes are taken.
    """
    files, times = hashlib.sha256(), hashlib.sha256()
    splits = (train_set, val_set)
    paths = [p for split in splits if isinstance(split, ImageFiles) for p in split.paths.tolist()]
    # The folders that the first and the last have in common are common to all.
    folder = os.path.commonpath([min(paths), max(paths)]) if paths else b""
    for path in paths:
        try:
            status = os.stat(path)
            size, time_ = status.st_size, status.st_mtime_ns
        except OSError:
            size = time_ = -1
        files.update(b"%b\0%d\n" % (path[len(folder) :], size))
        times.update(b"%d\n" % time_)
    for split in splits:
        files.update(split.labels.numpy().tobytes())
        if isinstance(split, ImageArray):
            files.update(split.pixels.numpy().data)
    return {
        "classes": list(classes),
        "train_images": len(train_set),
        "val_images": len(val_set),
        "images": {
            "folder": os.fsdecode(os.path.realpath(folder)),
            "files": files.hexdigest(),
            "times": times.hexdigest(),
        },
    }


def warn_of_other_images(
    path: Path, before: Mapping[str, str] | None, now: Mapping[str, str] | None, *, advice: str = ""
) -> None:
    """Warn where the images have changed since X.pth was trained on them.

    before, now: `images` of `data_facts`, None where they are not known. A copy of the images in
    another folder is as good, whatever its times.
    """
    if not before or not now:
        return
    same_folder = before["folder"] == now["folder"]
    if before["files"] != now["files"]:
        fault = "are others now: their names, sizes or labels differ"
    elif same_folder and before["times"] != now["times"]:
        fault = "have been written again since: their times differ"
    else:
        return
    warn(f"the images that {path} was trained on {fault}{advice}")


def as_csv(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV text: numbers in full precision, empty cells for None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute the numbers."""
    import numpy
    import torchvision

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
    }


@functools.cache
def code_version() -> str | None:
    """Commit of the repository that this code runs from; None outside of one, or without git."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():  # git would find a repository that this one lies in
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def device_name(device: torch.device) -> str:
    """The device in words, for the record."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()}, {torch.get_num_threads()} threads, {sys.platform})"
