"""Errors for files that cannot be compared or written, warnings for numbers that may mislead."""

import hashlib
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from console import InputError, offer, warn
from models.blocks import AUXILIARY
from models.checkpoint import Checkpoint, is_plain, not_finite
from models.comparison import check_same_network
from models.containers import names
from models.layers import Layer, identify, in_module, root_of
from safe_io import check_output, sha256, sibling

from .results import Result, read_record

# Where training scripts keep a moving average of the parameters.
EMA_CONTAINERS = ("model_ema", "ema")
# What has to be the same where T or a companion of two files is compared: entries of a record, in
# the words of the command line. What an old record does not hold is unknown, not unlike.
BUDGET = (
    "arch",
    "train_images",
    "classes",
    "labels",
    "steps",
    "sum_lr",
    "batch_size",
    "last_batch",
    "processes",
    "weight_decay",
    "optimizer",
    "image_size",
    "freeze",
    "kept",
)


def check_known(theta: Checkpoint) -> None:
    """Raise InputError for a file with tensors that nothing is known about."""
    refuse(theta, theta.partition.faults, "")


def check_complete(theta: Checkpoint) -> None:
    """Raise InputError for a file that does not hold a whole network."""
    refuse(theta, theta.partition.missing, "incomplete: ")


def refuse(theta: Checkpoint, problems: tuple[str, ...], start: str) -> None:
    """Raise InputError for the first problem of a file, if there is one."""
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(
            f"{theta.path}: {start}{problems[0]}{more}; python -m models {theta.path} lists "
            f"everything{offer(', and --ignore PATTERN leaves tensors out')}"
        )


def check_comparable(r: Checkpoint, a: Checkpoint, b: Checkpoint) -> None:
    """Raise InputError where files are of different networks, incomplete, or given twice."""
    for flag, x in (("-a", a), ("-r", r)):
        if x.path.resolve() == b.path.resolve():
            raise InputError(f"{flag} and -b are the same file {x.path}; nothing can have moved")
    for x in (r, a, b):
        check_known(x)
    head = a.choice.head
    if head not in (None, "none") and not any(x.partition.head for x in (r, a, b)):
        raise InputError(f"--head {head}: no file has a weight in a module of that name")
    for other in (r, b):
        check_same_network(
            a.partition, other.partition, name_a=str(a.path), name_other=str(other.path)
        )
    # After the comparison, which names the shape of what is missing in one file alone.
    for x in (r, a, b):
        check_complete(x)


def check_measured(result: Result, r: Checkpoint, a: Checkpoint, b: Checkpoint) -> None:
    """Raise InputError where the files hold values that are not finite, or where nothing moved."""
    measured = [x for x in result.layers if not x.layer.is_classifier]
    for x in measured:
        if not math.isfinite(x.distance_r_b + x.distance_a_b + x.distance_r_a):
            raise InputError(find_not_finite((r, a, b), x.layer))
    if not measured:
        raise InputError(f"{a.path} has no layers to compare beside a classifier")
    if all(x.distance_r_a == 0 for x in measured):
        raise InputError(f"{r.path} and {a.path} hold the same parameters; check -r and -a")
    if all(x.distance_r_b == 0 for x in measured):
        raise InputError(f"{r.path} and {b.path} hold the same parameters; check -r and -b")
    if all(x.distance_a_b == 0 for x in measured):
        raise InputError(f"{a.path} and {b.path} hold the same parameters; check -a and -b")
    # No sum or mean of values below this overflows.
    if not result.values() or max(result.values()) > 1e100:
        raise InputError(f"{b.path} hardly differs from {a.path}: T is too large for a number")


def find_not_finite(checkpoints: tuple[Checkpoint, ...], layer: Layer) -> str:
    """Say which file and tensor holds NaN or infinity."""
    for file in checkpoints:
        for key in layer.tensors:
            if not torch.isfinite(file.tensors[key]).all():
                return not_finite(file.path, key)
    return f"the values of {layer.name} are too large to compare"


def warn_of_doubts(result: Result, a: Checkpoint, b: Checkpoint) -> None:
    """Warn where the numbers are right but may not mean what they seem to."""
    if a.container in EMA_CONTAINERS and b.container not in EMA_CONTAINERS:
        warn(f"{a.path} is a moving average ({a.container}) and {b.path} is not; compare like")
    if all(value < 1 for value in result.values()):
        warn(
            f"every layer of {b.path} has T < 1: normal for a network trained from theta_r; "
            "otherwise check that -r and -a are not exchanged"
        )
    warn_of_not_finite(b)
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


def warn_of_not_finite(theta: Checkpoint) -> None:
    """Warn where a tensor that does not count holds NaN or infinity; others are looked at later."""
    for key, value in theta.tensors.items():
        if key in theta.partition.counted or not is_plain(value):
            continue
        # A view may repeat few numbers more often than fit into memory.
        bytes_ = value.numel() * value.element_size()
        if bytes_ > value.untyped_storage().nbytes():
            continue
        # Only NaN and infinity make the sum in float64 one.
        if not math.isfinite(value.sum(dtype=torch.float64).item()):
            warn(f"{theta.path}: {key} holds NaN or infinity; the training may have diverged")
            break


def warn_of_left_out(
    r: Checkpoint, a: Checkpoint, b: Checkpoint, further_heads: Iterable[str]
) -> None:
    """Warn of classifiers that are left out, and of tensors that only some of the files have."""
    files = (r, a, b)
    auxiliary = dict.fromkeys(further_heads)
    heads = set()
    for x in files:
        heads |= {root_of(f"{x.partition.head}.weight") or x.partition.head}
        for key, reason in x.partition.left_out.items():
            if reason == "auxiliary classifier":
                auxiliary[key] = None
    owners: dict[str, list[str]] = {}
    for x in files:
        strangers = {*x.partition.strangers}
        for key in x.partition.shapes:
            if key not in strangers:
                owners.setdefault(key, []).append(str(x.path))
    if auxiliary:
        left_out = [key for key in owners if key in auxiliary]
        warn(f"auxiliary classifiers are left out: {names(left_out)}")
    unshared: dict[str, list[str]] = {}
    for key, paths in owners.items():
        is_head = any(head and in_module(key, head) for head in heads)
        if len(paths) < 3 and not is_head and not re.match(rf"(.*\.)?({AUXILIARY})\.", key):
            unshared.setdefault(" and ".join(paths), []).append(key)
    for paths, keys in unshared.items():
        warn(f"tensors of {paths} alone are left out: {names(sorted(keys))}")


def warn_of_strangers(theta: Checkpoint) -> None:
    """Warn of tensors that do not belong to the network."""
    if theta.partition.strangers:
        warn(
            f"{theta.path}: not a part of {identify(theta.partition)} and left out: "
            f"{names(theta.partition.strangers)}"
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
    if recorded is not None and recorded != sha256(parent):
        warn(f"{child} was not trained from {parent} (SHA-256); T would be wrong: check the files")


def budget_differences(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The entries of BUDGET in which records differ, with their values; [] for one budget.

    Sums of rates are equal to a relative 1e-6: the same schedule, added up in another order.
    """
    differing = []
    for key in BUDGET:
        values = [record[key] for record in records if record.get(key) is not None]
        if key == "sum_lr":
            unlike = any(not math.isclose(v, values[0], rel_tol=1e-6) for v in values)
            values = [f"{v:.6g}" for v in values]
        else:
            unlike = any(v != values[0] for v in values)
        if unlike:
            differing.append(f"{key} ({', '.join(dict.fromkeys(map(str, values)))})")
    return differing


def precision_and_signs(weights: Sequence[Tensor]) -> tuple[str, bytes]:
    """The types of the weights, and a digest of their signs, which rounding to another leaves."""
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(np.packbits(weight.float().signbit().numpy()))
    return ", ".join(sorted({str(weight.dtype) for weight in weights})), digest.digest()


def is_copy(first: Result, second: Result, signs: Sequence[tuple[str, bytes]]) -> bool:
    """Whether two files hold the same parameters, in whatever precision.

    signs: `precision_and_signs` of both.
    """
    (precision, digest), (other_precision, other_digest) = signs
    if precision != other_precision:
        return digest == other_digest
    # No two trainings end at the same distances in every layer, to the last digit.
    ends = [[(x.distance_r_b, x.distance_a_b) for x in result.layers] for result in (first, second)]
    return ends[0] == ends[1]


def check_seeds(results: list[Result], signs: list[tuple[str, bytes]]) -> None:
    """Raise InputError unless the files are seeds of one experiment.

    There have to be two at least, with the same layers, no copies of each other, and trained at one
    budget as far as their records say. signs: `precision_and_signs` of each.
    """
    if len(results) < 2:
        raise InputError("--group needs two files at least")
    layers = [x.layer.name for x in results[0].layers]
    for result in results:
        if [x.layer.name for x in result.layers] != layers:
            raise InputError(
                f"--group: {results[0].b} and {result.b} have other layers, as where only one of "
                "them has a classifier"
            )
    for (first, *its), (second, *others) in combinations(zip(results, signs, strict=True), 2):
        if is_copy(first, second, [*its, *others]):
            raise InputError(
                f"--group: {first.b} and {second.b} hold the same parameters; a copy is no seed of "
                "its own"
            )
    records = [record for record in (read_record(result.b) for result in results) if record]
    differing = budget_differences(records)
    if differing:
        raise InputError(
            f"--group: the files differ in {', '.join(differing)}; give seeds of one experiment"
        )


def warn_of_other_budgets(results: list[Result]) -> None:
    """Warn where the records of files measured together are of different budgets."""
    records = [record for record in (read_record(result.b) for result in results) if record]
    differing = budget_differences(records)
    if differing:
        warn(
            f"the files differ in {', '.join(differing)}: their T cannot be compared as if only "
            "the data differed"
        )
    epochs = dict.fromkeys(str(x["kept_epoch"]) for x in records if x["kept"] == "best")
    if len(epochs) > 1:
        warn(
            f"the best epochs of the files are not the same ({', '.join(epochs)}), and T falls "
            "with every epoch: trained with --keep last, files compare better"
        )


def check_outputs(given: Iterable[Path | None], inputs: list[Path]) -> list[Path]:
    """Return the outputs that are `given` (None: not wanted).

    Raises InputError where one cannot be written, or would replace another one or a file of
    `inputs`. The records X.json and X.csv of the training runs beside the inputs are no less
    precious.
    """
    outputs = [check_output(path) for path in given if path]
    taken: dict[Path, str] = {}
    for path in inputs:
        # A record lies beside a link or beside what it points at.
        for file in (path, path.resolve()):
            taken |= dict.fromkeys(places(file), "it is given as an input")
            for suffix in (".json", ".csv"):
                reason = f"it belongs to the training run of {path}"
                taken = dict.fromkeys(places(sibling(file, suffix)), reason) | taken
    for output in outputs:
        for place in places(output):
            if place in taken:
                raise InputError(f"cannot write {output}: {taken[place]}; give another file name")
        taken |= dict.fromkeys(places(output), "it is another output")
    return outputs


def places(path: Path) -> set[Path]:
    """Where a file lies by its name, and where a link of that name points."""
    return {path.parent.resolve() / path.name, path.resolve()}
