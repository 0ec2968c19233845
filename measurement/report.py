"""The results of step 3 as text: on the terminal, as JSON and as CSV."""

import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any

from console import ascii_line, say, warn

from .results import Group, LayerResult, Result, read_record


def print_result(result: Result, *, substitute: bool) -> None:
    """Print the layer-wise list, the mean, and how the file was trained where that is known.

    substitute: theta_r was drawn by step 3, which is said. Warns of layers that did not move.
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
    if substitute:
        say("theta_r is a SUBSTITUTE drawn here: not comparable with values from a true theta_r")
    if still:
        warn(
            f"{', '.join(still)} did not move in {result.b}: mean over {layers}; "
            "not comparable with a full fine-tuning"
        )
    record = read_record(result.b)
    if record:
        say(
            f"Fine-tuning: {record['steps']} steps in {record['epochs']} epochs, {record['kept']} "
            f"epoch kept ({record['kept_epoch']}), training loss {record['train_loss']:.4f}, "
            f"validation accuracy {record['val_acc']:.2f} %"
        )


def print_table(results: list[Result]) -> None:
    """Print a line per file."""
    rows = [("file", "T", "geometric", "layers", "steps", "val_acc")]
    for result in results:
        record = read_record(result.b)
        rows.append(
            (
                ascii_line(result.b),
                f"{result.transferability:.2f}",
                f"{result.geometric_mean:.2f}",
                str(len(result.values())),
                str(record["steps"]) if record else "-",
                f"{record['val_acc']:.2f}" if record else "-",
            )
        )
    width = max(len(row[0]) for row in rows)
    for name, *cells in rows:
        print(f"{name:{width}}" + "".join(f"{cell:>11}" for cell in cells))


def print_group(seeds: Group) -> None:
    """Print mean and standard deviation per layer and overall."""
    print(f"Mean over {seeds.count} files:  {[round(v, 2) for v in seeds.means]}")
    print(f"Standard deviation:  {[round(v, 2) for v in seeds.deviations]}")
    print(
        f"Transferability: {seeds.transferability:.2f}, standard deviation {seeds.deviation:.2f} "
        f"over {seeds.count} files"
    )


def to_json(facts: Mapping[str, Any], results: list[Result], seeds: Group | None) -> str:
    """Everything, unrounded; infinite values are the string "inf", as JSON has no such number.

    facts: entries for arch, r, a, r_is_substitute.
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
    content = {**facts, "results": found}
    if seeds:
        content["group"] = {
            **seeds._asdict(),
            "means": [json_number(v) for v in seeds.means],
            "deviations": [json_number(v) for v in seeds.deviations],
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
        "transferability": json_number(x.transferability),
        "in_mean": x.in_mean,
    }


def json_number(value: float) -> float | str:
    """The number, or its name where JSON has none for it."""
    return value if math.isfinite(value) else str(value)


def to_csv(results: list[Result]) -> str:
    """A row per file and layer, for a spreadsheet; the cells of unmeasured distances are empty."""
    text = io.StringIO()
    columns = ("distance_r_b", "distance_a_b", "distance_r_a", "transferability", "in_mean")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["b", "block", "layer", *columns])
    for result in results:
        for block, x in enumerate(result.layers, start=1):
            row = [getattr(x, column) for column in columns]
            writer.writerow([str(result.b), block, x.layer.name, *row])
    # A key or a file name may hold what UTF-8 has no bytes for.
    return text.getvalue().encode("utf-8", "backslashreplace").decode("utf-8")
