"""One run of a study: its start, fine-tuning and measurement; and the agreement of its seeds."""

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import cal_transferability
import finetune
import pretrain_on_ImageNet
from console import InputError, say
from safe_io import Busy, atomic_write, locked, sha256

from . import shuffle
from .plan import Planned, Setup
from .reader import read_json

# Of X.json, as they are.
RECORDED = (
    *("epochs", "steps", "sum_lr", "last_batch", "kept_epoch", "train_loss", "val_acc"),
    "seconds",
)
# Of step 3's JSON file: means over the layers; numbers of a layer -> first word of their columns.
MEANS = ("transferability", "geometric_mean", "rotation", "t_angle", "left_of_r", "shrinkage")
OF_LAYERS = {
    "transferability": "T",
    "t_angle": "T_angle",
    "rotation": "rotation",
    "distance_r_b": "distance_r_b",
    "distance_a_b": "distance_a_b",
}
# Seeds of the draws that stand for an unknown theta_r: the first that is not theta_r itself.
SUBSTITUTES = (1, 2)
ADVICE = "remove it to run the row again"


def attempt(setup: Setup, row: Planned, settings: Mapping[str, Any]) -> None:
    """Do one run, unless another process is at it."""
    try:
        run_row(setup, row, settings)
    except Busy as busy:
        say(f"left to another process: {busy}")


def run_row(setup: Setup, row: Planned, settings: Mapping[str, Any]) -> None:
    """Fine-tune and measure; write the result beside the checkpoint.

    settings: what the result remembers of the study, see `study.settings_of`. Raises InputError
    where the checkpoint is there already, but from another start.
    """
    path, start = setup.out / f"{row.name}.pth", setup.start_file(row)
    make_start(setup, row)
    finetune.main(setup.finetune_words(row))

    record = read_json(path.with_suffix(".json"), advice=ADVICE)
    if record["parent_sha256"] != sha256(start):
        raise InputError(f"{path} was trained from another start; give another folder for --out")

    def measure(r: str, *words: str) -> dict[str, Any]:
        files = ["-r", r, "-a", str(start), "-b", str(path)]
        return measured([*files, *words], setup.out, row.name)["results"][0]

    draws = [measure(f"random:{seed}", "--arch", str(setup.arch)) for seed in SUBSTITUTES]
    result = measure(str(setup.theta_r(row)))
    # A draw may be theta_r itself.
    others = [x["transferability"] for x in draws if x["layers"] != result["layers"]]

    # In the order of the columns of results.csv. The record has what the plan leaves empty.
    own = {column: row.cells[column] for column in ("dataset", "folder", "start", "labels")}
    cells = {
        **own,
        "start": own["start"].partition(":")[0],
        "labels": own["labels"] or "true",
        "samples": record["train_images"],
        "classes": len(record["classes"]),
        **{key: record["args"][key] for key in ("batch_size", "lr", "weight_decay", "seed")},
        **settings,
        "start_sha256": record["parent_sha256"],
        **{key: record[key] for key in RECORDED},
        "processor": processor(record["device"]),
        "torch": torch.__version__,
        **{key: result[key] for key in MEANS},
        "transferability_substitute": others[0],
    }
    for key, word in OF_LAYERS.items():
        for layer in result["layers"]:
            if layer["distance_a_b"] is not None:  # not the classifier
                cells[f"{word} {layer['name']}"] = layer[key]
    atomic_write(result_file(setup.out, row), json.dumps(cells, indent=1) + "\n")


def make_start(setup: Setup, row: Planned) -> None:
    """Write the start of the row where it is neither theta_A nor there already."""
    start, (kind, _, seed) = setup.start_file(row), row.cells["start"].partition(":")
    if kind == "random" and not start.exists():
        # Of two processes the second finds the same file; step 1 has its own lock.
        pretrain_on_ImageNet.main(setup.random_words(row))
    if kind == "shuffled":
        with locked(start, wait=True):
            if not start.exists():
                a, seed = str(setup.theta_a(row)), seed or "0"
                shuffle.main(["-a", a, "-o", str(start), "--seed", seed])


def measured(words: Sequence[str], out: Path, name: str) -> dict[str, Any]:
    """What step 3 says of the files in its arguments: the content of out/NAME_T.json."""
    file = out / f"{name}_T.json"
    if cal_transferability.main([*words, "--json", str(file), "--no_plot"]):
        raise InputError(f"{name} could not be measured; see above")
    return read_json(file, advice=ADVICE)


def processor(device: str) -> str:
    """What the run was computed on, since the last digits depend on it: device and processor."""
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        name = info.partition("model name")[2].splitlines()[0].partition(":")[2].strip()
    except (OSError, IndexError):
        name = platform.processor()
    return f"{device}, {name}, {torch.backends.cpu.get_cpu_capability()}"


def result_file(out: Path, row: Planned) -> Path:
    """The row of a finished run for the table, in a file that one process alone writes."""
    return out / f"{row.name}_result.json"


def agreement_file(out: Path, row: Planned) -> Path:
    """The agreement of the seeds of a row, which outlives their checkpoints."""
    return out / f"{row.cell}_agreement.json"


def write_agreement(setup: Setup, seeds: Sequence[Planned]) -> None:
    """Measure the agreement of the finished runs of one cell, and of its seeds 0 and 1.

    seeds: the rows of the cell. Nothing is done where no further checkpoint has come.
    """
    path_of = {
        row.seed: path
        for row in seeds
        if (path := setup.out / f"{row.name}.pth").exists() and result_file(setup.out, row).exists()
    }
    file = agreement_file(setup.out, seeds[0])
    known = read_json(file, advice=ADVICE)["seeds"] if file.exists() else []
    if len(path_of) < 2 or set(path_of) <= set(known):
        return
    files = ["-r", str(setup.theta_r(seeds[0])), "-a", str(setup.start_file(seeds[0])), "--group"]

    def agreement(chosen: Sequence[int]) -> float | None:
        words = [*files, "-b", *(str(path_of[seed]) for seed in chosen)]
        return measured(words, setup.out, seeds[0].cell)["group"]["agreement"]

    found = {"seeds": sorted(path_of), "agreement": agreement(sorted(path_of))}
    both = {0, 1} <= set(path_of)
    found["agreement_01"] = agreement([0, 1]) if both else None
    atomic_write(file, json.dumps(found, indent=1) + "\n")
