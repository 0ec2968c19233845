"""X.json, which a training run writes beside X.pth, and what it says against a comparison."""

import functools
import json
from pathlib import Path
from typing import Any

from models import checkpoint
from models.checkpoint import beside
from safe_io import warn

from .results import Result

# What T depends on besides the data: of X.json, or of the arguments in it.
BUDGET = (
    "steps",
    "kept",
    "optimizer",
    "lr",
    "batch_size",
    "weight_decay",
    "scheduler",
    "warmup_epochs",
    "freeze",
)
# What is read of X.json.
RECORD_TYPES = {
    "steps": int,
    "epochs": int,
    "kept": str,
    "kept_epoch": int,
    "train_loss": float,
    "val_acc": float,
}


@functools.cache
def read_record(path: Path) -> dict[str, Any]:
    """X.json of the run that wrote X.pth, or {} where there is none that speaks of this file.

    Remembered, so that the file is hashed once and a warning comes once.
    """
    file = beside(path, ".json")
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        same = record["sha256"] == checkpoint.sha256(path)
        for key, type_ in RECORD_TYPES.items():
            record[key] = type_(record[key])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
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


def warn_of_other_budgets(results: list[Result]) -> None:
    """Warn where the records of files measured together are of different budgets."""
    budgets = []
    for record in (read_record(result.b) for result in results):
        if record:
            args = record.get("args")
            budgets.append((args if isinstance(args, dict) else {}) | record)
    differing = []
    for key in BUDGET:
        values = dict.fromkeys(str(budget.get(key)) for budget in budgets)
        if len(values) > 1:
            differing.append(f"{key} ({', '.join(values)})")
    if differing:
        warn(
            f"the files differ in {', '.join(differing)}: their T cannot be compared as if only "
            "the data differed"
        )
