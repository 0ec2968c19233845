"""The results of step 3 as text: on the terminal, as JSON and as CSV."""

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from console import one_line, say, warn
from safe_io import sha256

from .companions import COMPANIONS
from .results import (
    RECORD,
    Group,
    LayerResult,
    Result,
    companions_of_file,
    predicted_by_decay,
    read_record,
)


def print_result(result: Result, path_a: Path, *, substitute: bool) -> None:
    """Print the layer-wise list, the means, and how the file was trained where that is known.

    path_a: file of theta_A. substitute: theta_r was drawn by step 3, which is said. Warns of layers
    that did not move.
    """
    for x in result.tensors:
        say(
            f"{x.layer.name:40} T {x.transferability:8.2f}  "
            f"D(r, B) {x.distance_r_b:.6g}  D(A, B) {x.distance_a_b:.6g}"
        )
    values = [round(x.transferability, 2) for x in result.layers]
    print(f"Layer-wise transferability:  {values}")

    count = len(result.values())
    still = [x.layer.name for x in result.layers if not x.moved]
    layers = f"{count} of {count + len(still)} layers" if still else f"{count} layers"
    new = any(x.layer.is_classifier for x in result.layers)
    ending = "; the classifier is new and left out" if new else ""
    say(f"Transferability: {result.transferability:.2f} (mean over {layers}{ending})")
    print_rotation(result)
    print_decay(result, path_a)
    if substitute:
        print_substitute(predicted_by_decay(path_a))
    if still:
        warn(
            f"{', '.join(still)} did not move in {result.b}: mean over {layers}; "
            "not comparable with a full fine-tuning"
        )
    print_record(read_record(result.b))


def print_rotation(result: Result) -> None:
    """Print the mean angle that fine-tuning turned the layers by, and those of first and last."""
    turned = [x for x in result.layers if x.companions and x.companions.rotation is not None]
    if result.rotation is None or not turned:
        return
    first, last = (
        f"{x.companions.rotation:.1f} in {x.layer.name}" for x in (turned[0], turned[-1])
    )
    say(f"Rotation: {result.rotation:.1f} degrees ({first} ... {last})")


def print_decay(result: Result, path_a: Path) -> None:
    """Print what is left of theta_r and of theta_A's norm, where weight decay predicts both."""
    values = companions_of_file(result, path_a)
    decay = ("left_of_r", "left_of_r_predicted", "shrinkage", "shrinkage_predicted")
    left, left_predicted, shrinkage, shrinkage_predicted = (values[name] for name in decay)
    if None not in (left, left_predicted, shrinkage, shrinkage_predicted):
        say(
            f"Weight decay: {left:.2f} of theta_r left in theta_A (decay alone "
            f"{left_predicted:.3f}), norm of theta_FB {shrinkage:.3f} of theta_A's (decay alone "
            f"{shrinkage_predicted:.3f})"
        )


def print_substitute(left: float | None) -> None:
    """Say that theta_r was drawn here, and whether T can be trusted all the same.

    left: share of the true theta_r that weight decay has left in theta_A; None where it is unknown.
    """
    if left is not None and left < 0.05:
        say(
            f"theta_r is a substitute drawn here; weight decay has left {100 * left:.2g} % of the "
            "true one in theta_A, so T is nearly that of the true theta_r"
        )
        return
    known = "" if left is None else f" ({100 * left:.0f} % of the true one is left in theta_A)"
    say(
        f"theta_r is a SUBSTITUTE drawn here: not comparable with values from a true theta_r{known}"
    )


def print_record(record: Mapping[str, Any]) -> None:
    """Print how a file was trained, where that is known."""
    if record:
        accuracy = "none" if record["val_acc"] is None else f"{record['val_acc']:.2f} %"
        say(
            f"Fine-tuning: {record['steps']} steps in {record['epochs']} epochs, {record['kept']} "
            f"epoch kept ({record['kept_epoch']}), training loss {record['train_loss']:.4f}, "
            f"validation accuracy {accuracy}"
        )


def print_table(results: list[Result]) -> None:
    """Print a line per file."""
    rows = [("file", "T", "geometric", "T_angle", "rotation", "layers", "steps", "val_acc")]
    for result in results:
        record = read_record(result.b)
        rows.append(
            (
                one_line(result.b),
                f"{result.transferability:.2f}",
                f"{result.geometric_mean:.2f}",
                cell(result.t_angle),
                cell(result.rotation),
                str(len(result.values())),
                str(record["steps"]) if record else "-",
                cell(record.get("val_acc")),
            )
        )
    width = max(len(row[0]) for row in rows)
    for name, *cells in rows:
        print(f"{name:{width}}" + "".join(f"{cell:>11}" for cell in cells))


def cell(value: float | None) -> str:
    """A number with two digits, or a dash for none."""
    return "-" if value is None else f"{value:.2f}"


def print_group(seeds: Group) -> None:
    """Print mean and standard deviation per layer and overall."""
    print(f"Mean over {seeds.count} files:  {[round(v, 2) for v in seeds.means]}")
    print(f"Standard deviation:  {[round(v, 2) for v in seeds.deviations]}")
    print(
        f"Transferability: {seeds.transferability:.2f}, standard deviation {seeds.deviation:.2f} "
        f"over {seeds.count} files"
    )
    if seeds.agreements:
        values = seeds.agreements.values()
        say(f"Agreement of seeds: {seeds.agreement:.2f} ({min(values):.2f} ... {max(values):.2f})")


def to_json(facts: Mapping[str, Any], results: list[Result], seeds: Group | None) -> str:
    """Everything, unrounded; infinite values are the string "inf", as JSON has no such number.

    facts: entries for arch, r, a, r_is_substitute.
    """
    content = {**facts, "results": [result_json(result, facts) for result in results]}
    if seeds:
        content["group"] = {
            **seeds._asdict(),
            "means": [json_number(v) for v in seeds.means],
            "deviations": [json_number(v) for v in seeds.deviations],
            "agreement": seeds.agreement,
        }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def result_json(result: Result, facts: Mapping[str, Any]) -> dict[str, Any]:
    """One theta_FB for the JSON file: T, companions, layers, and what it takes to compare it."""
    entry = {
        "b": str(result.b),
        "transferability": result.transferability,
        "geometric_mean": result.geometric_mean,
        **companions_of_file(result, Path(facts["a"])),
        "layers": [layer_json(x) for x in result.layers],
    }
    if result.tensors:
        entry["tensors"] = [layer_json(x) for x in result.tensors]
    record = read_record(result.b)
    if record:
        entry["record"] = {key: record[key] for key in RECORD}
        # Where a record is there: hashing twenty files costs more than measuring them.
        entry |= {"sha256_b": record["sha256"]}
        for key in ("r", "a"):
            path = Path(facts[key])
            entry[f"sha256_{key}"] = sha256(path) if path.is_file() else None
    return entry


def layer_json(x: LayerResult) -> dict[str, Any]:
    """One layer for the JSON file."""
    return {
        "name": x.layer.name,
        "tensors": list(x.layer.tensors),
        "distance_r_b": x.distance_r_b,
        "distance_a_b": x.distance_a_b,
        "distance_r_a": x.distance_r_a,
        "transferability": json_number(x.transferability),
        "in_mean": x.in_mean,
        **{name: json_number(getattr(x.companions, name, None)) for name in COMPANIONS},
    }


def json_number(value: float | None) -> float | str | None:
    """The number, or its name where JSON has none for it."""
    return value if value is None or math.isfinite(value) else str(value)


def to_csv(facts: Mapping[str, Any], results: list[Result]) -> str:
    """A row per file and layer, for a spreadsheet; the cells of what is unknown are empty."""
    text = io.StringIO()
    distances = ("distance_r_b", "distance_a_b", "distance_r_a", "transferability", "in_mean")
    of_file = ("left_of_r", "left_of_r_predicted", "shrinkage", "shrinkage_predicted")
    hashes = ("sha256_r", "sha256_a", "sha256_b")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["b", "block", "layer", *distances, *COMPANIONS, *of_file, *hashes, *RECORD])
    for result in results:
        entry = result_json(result, facts)
        record = entry.get("record", {})
        ending = [entry.get(key) for key in (*of_file, *hashes)] + [record.get(k) for k in RECORD]
        for block, x in enumerate(result.layers, start=1):
            row = [getattr(x, column) for column in distances]
            row += [getattr(x.companions, name, None) for name in COMPANIONS]
            writer.writerow([str(result.b), block, x.layer.name, *row, *ending])
    # A key or a file name may hold what UTF-8 has no bytes for.
    return text.getvalue().encode("utf-8", "backslashreplace").decode("utf-8")
