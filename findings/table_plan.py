"""The two plans of the remade table, and its data sets as folders of links.

    python -m findings table_plan findings
    python -m findings table_plan findings DATA

writes table_plan.csv, and table_plan_a2.csv for the second theta_A, into the first folder. DATA
holds a folder with train/CLASS and val/CLASS for every data set of TRAIN_IMAGES, for `tiny`
(Tiny-ImageNet), and for the changed images of CIFAR-10 (`python -m findings variants DATA/cifar10
DATA/variants --samples 5000`); the folders of blocks K, D and G are made there, of links.
"""

import csv
import io
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from console import ArgumentParser, say
from safe_io import atomic_write

# Folder of a data set -> its training images.
TRAIN_IMAGES = {
    "caltech101": 6982,
    "flowers102": 2040,
    "ucmerced": 1680,
    "pocus": 1803,
    "cub50": 1500,
    "dtd10": 960,
    "pacs_photo": 1339,
    "pacs_art_painting": 1641,
    "pacs_cartoon": 1878,
    "pacs_sketch": 3145,
    "gtsrb": 21748,
    "wbc": 9957,
    "neu": 1440,
    "mnist": 60000,
    "cifar10": 50000,
}
BATCH = 128
# The standard cell: N images (7 steps a pass), S steps (60 passes).
SAMPLES, STEPS = 896, 420
# Steps after which random labels, too, are learnt.
LONG = 4 * STEPS
# A short last batch would count as a step like any other: whole batches alone.
WHOLE = {name: number // BATCH * BATCH for name, number in TRAIN_IMAGES.items()}
EPOCHS = 20
# Data sets up to this size are repeated at equal epochs.
REPEATED = 10_000
# Numbers of classes; all classes of CIFAR-10 and GTSRB are in block E.
CLASSES = {"cifar10": (2, 5), "gtsrb": (2, 5, 10), "tiny": (2, 5, 10, 20, 50)}
MERGED = (2, 5)
UNSEEN = 20
# Name of block G -> that of `findings variants`.
CHANGES = {"blur": "blurred_2", "invert": "inverted", "grey": "greyscale", "patches": "patches"}
SEEDS = range(3)


class Row(NamedTuple):
    """A run of the plan; columns as of `findings study`."""

    block: str
    dataset: str
    folder: str
    start: str
    labels: str
    samples: int
    classes: str
    steps: int
    epochs: str
    batch_size: int
    lr: str
    weight_decay: str
    seed: int


def row(
    block: str,
    folder: str,
    seed: int,
    *,
    steps: int = STEPS,
    samples: int = SAMPLES,
    start: str = "theta_A",
    labels: str = "true",
    lr: str = "0.01",
) -> Row:
    """A run in the standard cell but for what is given."""
    size = (samples, "", steps, "", BATCH)
    return Row(block, "Folder", folder, start, labels, *size, lr, "0.0001", seed)


def plan() -> Iterator[Row]:
    """The runs in their order: whole stages may be cut from the end."""
    yield from table(0)
    yield from (row("N", name, 0, labels="random") for name in TRAIN_IMAGES)
    yield from variants(0)
    yield from table(1)
    for seed in (0, 1):
        yield from (row("N", name, seed, start="shuffled") for name in TRAIN_IMAGES)
        yield from (row("N", name, seed, start="random") for name in ("cifar10", "gtsrb"))
    yield from variants(1)
    for seed in (0, 1):
        for labels in ("true", "random"):
            yield row("N", "cifar10", seed, steps=LONG, labels=labels)
        # The same sum of rates in half and in twice the steps.
        for name in ("cifar10", "caltech101"):
            yield row("F", name, seed, steps=STEPS // 2, lr="0.02")
            yield row("F", name, seed, steps=STEPS * 2, lr="0.005")
    yield from (row("E", name, 2) for name in TRAIN_IMAGES)
    yield from variants(2)


def table(seed: int) -> Iterator[Row]:
    """Equal images and steps (E), equal epochs (P), whole data sets at equal steps (W)."""
    yield from (row("E", name, seed) for name in TRAIN_IMAGES)
    for name, whole in WHOLE.items():
        if seed == 0 or TRAIN_IMAGES[name] < REPEATED:
            yield row("P", name, seed, steps=EPOCHS * whole // BATCH, samples=whole)
        if whole > SAMPLES:
            yield row("W", name, seed, samples=whole)


def variants(seed: int) -> Iterator[Row]:
    """Numbers of classes (K), classes merged (D), images changed (G)."""
    for name, numbers in CLASSES.items():
        yield from (row("K", f"{name}_k{number}_s{seed}", seed) for number in numbers)
    yield row("K", "tiny", seed)
    yield row("K", f"tiny_unseen{UNSEEN}_s{seed}", seed)
    yield from (row("D", f"cifar10_merged{number}_s{seed}", seed) for number in MERGED)
    yield from (row("G", f"cifar10_{change}", seed) for change in CHANGES)


def second_plan() -> Iterator[Row]:
    """Block E, seed 0, on a second theta_A."""
    for planned in plan():
        if planned.block == "E" and planned.seed == 0:
            yield planned._replace(block="A2")


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write a plan."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Row._fields, *rows])
    atomic_write(path, text.getvalue())
    say(f"{path.resolve()}: {len(rows)} runs, {sum(planned.steps for planned in rows)} steps")


def make_folders(data: Path) -> None:
    """Make the folders of blocks K, D and G in DATA. Classes are drawn by seed, nested."""
    for seed in SEEDS:
        for name, numbers in CLASSES.items():
            order = drawn_classes(data / name / "train", seed)
            for number in numbers:
                link(data, f"{name}_k{number}_s{seed}", name, {c: [c] for c in order[:number]})
            if name == "tiny":
                groups = {c: [c] for c in order[:UNSEEN]}
                link(data, f"tiny_unseen{UNSEEN}_s{seed}", name, groups, exchanged=True)
            if name == "cifar10":
                for number in MERGED:
                    groups = {f"m{i}": order[i::number] for i in range(number)}
                    link(data, f"cifar10_merged{number}_s{seed}", name, groups)
    for name, change in CHANGES.items():
        source = data / "variants" / change
        if source.is_dir():
            classes = sorted(os.listdir(source / "train"))
            link(data, f"cifar10_{name}", f"variants/{change}", {c: [c] for c in classes})


def drawn_classes(folder: Path, seed: int) -> list[str]:
    """The classes with enough images that two of them fill the standard cell, in random order."""
    classes = [name for name in sorted(os.listdir(folder)) if enough(folder / name)]
    random.Random(seed).shuffle(classes)
    return classes


def enough(folder: Path) -> bool:
    """Whether a class has half the images of the standard cell."""
    return len(os.listdir(folder)) >= SAMPLES // 2


def link(
    data: Path,
    folder: str,
    source: str,
    groups: Mapping[str, Sequence[str]],
    *,
    exchanged: bool = False,
) -> None:
    """Make a folder of links to class folders, unless it is there.

    groups: new class -> classes of the source. exchanged: train on the validation images, which
    theta_A has not seen.
    """
    if (data / folder).is_dir():
        return
    for split, other in (("train", "val"), ("val", "train")):
        for group, names in groups.items():
            place = data / folder / split / group
            place.mkdir(parents=True)
            for name in names:
                of_source = data.resolve() / source / (other if exchanged else split) / name
                (place / name).symlink_to(of_source, target_is_directory=True)


def main(argv: list[str]) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings table_plan")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the plans")
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA", help="folder of the data")
    args = parser.parse_args(argv)
    write(args.out / "table_plan.csv", list(plan()))
    write(args.out / "table_plan_a2.csv", list(second_plan()))
    if args.data:
        make_folders(args.data)
