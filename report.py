"""What step 3 found: the structures, and how they are printed, stored and drawn."""

import csv
import functools
import io
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models import checkpoint
from models.checkpoint import Checkpoint, beside
from models.layers import Layer
from safe_io import InputError, ascii_line, atomic_path, say, warn

# Where training scripts keep a moving average of the parameters.
EMA_CONTAINERS = ("model_ema", "ema")
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
    """Several seeds of one experiment: mean and sample standard deviation over the files."""

    names: list[str]
    means: list[float]
    deviations: list[float]
    transferability: float
    deviation: float
    count: int


def print_result(result: Result, *, substitute: bool) -> None:
    """Print the layer-wise list, the mean, and how the file was trained where that is known."""
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


def group(results: list[Result]) -> Group:
    """Mean and spread over files that are seeds of one experiment.

    Raises InputError for less than two.
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


def print_group(seeds: Group) -> None:
    """Print mean and standard deviation per layer and overall."""
    print(f"Mean over {seeds.count} files:  {[round(v, 2) for v in seeds.means]}")
    print(f"Standard deviation:  {[round(v, 2) for v in seeds.deviations]}")
    print(
        f"Transferability: {seeds.transferability:.2f}, standard deviation {seeds.deviation:.2f} "
        f"over {seeds.count} files"
    )


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


def warn_of_doubts(result: Result, a: Checkpoint, b: Checkpoint) -> None:
    """Warn where the numbers are right but may not mean what they seem to."""
    if a.container in EMA_CONTAINERS and b.container not in EMA_CONTAINERS:
        warn(f"{a.path} is a moving average ({a.container}) and {b.path} is not; compare like")
    if all(value < 1 for value in result.values()):
        warn(
            f"every layer of {b.path} has T < 1: normal for a network trained from theta_r; "
            "otherwise check that -r and -a are not exchanged"
        )
    coarse = []
    for x in result.layers:
        if x.layer.is_classifier or not x.moved:
            continue
        steps = [
            max(rounding_step(file.tensors[key]) for file in (a, b)) for key in x.layer.tensors
        ]
        if x.distance_a_b < 10 * statistics.fmean(steps):
            coarse.append(x.layer.name)
    if coarse:
        warn(
            f"{', '.join(coarse)} moved by less than ten rounding steps of the precision that "
            f"{a.path} or {b.path} is stored in; T of these layers is inexact"
        )


def rounding_step(x: Tensor) -> float:
    """Mean distance between the elements of `x` and the next larger numbers of its type.

    0 for float32 and float64, whose steps are far below what fine-tuning moves.
    """
    type_ = torch.finfo(x.dtype)
    if type_.bits > 16:
        return 0.0
    # Below the smallest normal number the steps are all alike; frexp says 0 for 0.
    least = round(math.log2(type_.tiny))
    exponents = (torch.frexp(x.float()).exponent - 1).masked_fill_(x == 0, least).clamp_min_(least)
    return type_.eps * torch.exp2(exponents.double()).mean().item()


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


def check_outputs(outputs: list[Path], inputs: list[Path]) -> None:
    """Raise InputError where an output would replace another one, or a file of `inputs`.

    The records X.json and X.csv of the training runs beside the inputs are no less precious.
    """
    taken: dict[Path, str] = {}
    for path in inputs:
        # A record lies beside a link or beside what it points at.
        for file in (path, path.resolve()):
            taken |= dict.fromkeys(places(file), "it is given as an input")
            for suffix in (".json", ".csv"):
                reason = f"it belongs to the training run of {path}"
                taken = dict.fromkeys(places(beside(file, suffix)), reason) | taken
    for output in outputs:
        for place in places(output):
            if place in taken:
                raise InputError(f"cannot write {output}: {taken[place]}; give another file name")
        taken |= dict.fromkeys(places(output), "it is another output")


def places(path: Path) -> set[Path]:
    """Where a file lies by its name, and where a link of that name points."""
    return {path.parent.resolve() / path.name, path.resolve()}


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


def draw(results: list[Result], seeds: Group | None, path: Path | None, *, show: bool) -> None:
    """Draw T over the layers; write the figure to `path` and show it, if wanted.

    One panel for every file, or one for all with a band of one standard deviation if they are
    `seeds` of one experiment. Raises InputError for a format that matplotlib cannot write.
    """
    try:
        from matplotlib import figure as figures
    except ImportError as error:
        raise InputError(f"no figure: {error}; install matplotlib or add --no_plot") from error

    panels = 1 if seeds else len(results)
    columns = min(panels, 3)
    rows = -(-panels // columns)
    make_figure = figures.Figure
    if show:
        from matplotlib import pyplot

        make_figure = pyplot.figure
    figure = make_figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    for i in range(panels):
        axes = figure.add_subplot(rows, columns, i + 1)
        if seeds:
            draw_curve(axes, seeds.means, seeds.deviations)
            axes.set_title(f"{seeds.count} files (mean {seeds.transferability:.2f})")
        else:
            draw_curve(axes, [x.transferability for x in results[i].layers])
            # A file name may hold dollar signs.
            title = f"{results[i].b.stem} (mean {results[i].transferability:.2f})"
            axes.set_title(title, parse_math=False)
    if path is not None:
        save_figure(figure, path)
    if show:
        pyplot.show()


def draw_curve(axes: Any, values: list[float], deviations: list[float] | None = None) -> None:
    """T over the blocks as in the paper's figures; values that are not finite leave a gap."""
    from matplotlib.ticker import MaxNLocator

    blocks = range(1, len(values) + 1)
    values = [v if math.isfinite(v) else math.nan for v in values]
    axes.plot(blocks, values, "o-", markersize=4)
    if deviations:
        low = [v - d for v, d in zip(values, deviations, strict=True)]
        high = [v + d for v, d in zip(values, deviations, strict=True)]
        axes.fill_between(blocks, low, high, alpha=0.25, linewidth=0)
    axes.axhline(1.0, color="0.6", linewidth=0.8, linestyle="--")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Block")
    axes.set_ylabel(r"$T_{FB}(\theta_A)$")


def save_figure(figure: Any, path: Path) -> None:
    """Write the figure in the format that the file name ends in (PNG without one)."""
    format_ = path.suffix.removeprefix(".").lower() or "png"
    known = figure.canvas.get_supported_filetypes()
    if format_ not in known:
        raise InputError(f"cannot draw {path}: no such format; one of {', '.join(sorted(known))}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=format_, dpi=150)
