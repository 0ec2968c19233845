"""What the transferability may depend on: domain gap G, intraclass variance D, classes K, images N.

    python -m findings factors -a ImageNet_model.pth --source_dir DIR \\
        --dataset CIFAR-10 --data_dir DIR --csv results.csv

The paper does not define G and D; these definitions are ours. phi(x), with p numbers, is the input
of theta_A's classifier. S are the source's validation images (theta_A has fitted the training
images), B the target's training images, all in the validation transform. One scale, from S alone:
z = (phi - mean_S) / (s sqrt(p)), s^2 the mean over coordinates of the variance on S.

G         unbiased squared MMD between z of S and of B, kernel exp(-||z - z'||^2 / (2 h^2)), h^2
          half the median squared distance within S (column bandwidth2): mean over blocks of images
Frechet   distance of normal distributions fitted to z of S and of B, always of equally many images
D         variance of z within a class, mean over classes; D_share: over the variance of all of B

Add a column `transferability` to the table by hand for `python -m findings regression`; a run for
the same images and checkpoint replaces its row and keeps added columns.
"""

import argparse
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from console import ArgumentParser, InputError, integer, say, warn
from datasets import DATASETS, full_name, load
from datasets.folder import listing
from datasets.images import Images
from datasets.transforms import generator_for
from evaluate import image_size_of
from models import arch_name, checkpoint, default_image_size, paths
from models.comparison import architecture
from models.layers import num_classes
from safe_io import check_output, sha256
from training.device import choose_device
from training.options import add_evaluation_arguments

from .features import FeatureSample, features, load_network
from .gap import CHOSEN, Moments, Scale, bandwidth2, block_layout, frechet, gap, scale_of
from .reader import Table, check_columns, read_column, read_table, upsert
from .variance import ClassSums, diversity

# Source images that give h^2, always the same ones: it must not change with --seed.
RULER_IMAGES = 2000
# Columns of the table; a user may add others.
COLUMNS = (
    *("dataset", "checkpoint", "sha256", "arch", "source", "image_size", "samples", "classes"),
    *("seed", "G", "G_error", "G_blocks", "G_block_size", "bandwidth2", "frechet", "frechet_n"),
    *("D", "D_error", "D_share", "D_share_error", "seconds"),
)
# What a row is about: the images of both data sets, their size, and the parameters.
KEY = ("dataset", "samples", "classes", "seed", "sha256", "source", "image_size")
# What the ruler of G is made from.
RULER = ("sha256", "source", "image_size")
# Other hardware and TF32 change a median by far less, other source images by more.
SAME = 0.01

Batches = Iterable[tuple[Tensor, Tensor]]
# Network, images, their size, and seed of the part of S -> S.
Sources = dict[tuple[Any, ...], "Source"]


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__, prog="python -m findings factors")
    add = parser.add_argument
    add("-a", default="ImageNet_model.pth", help="file of theta_A; a bare name: in ckpt/")
    add("--arch", type=arch_name, help="(default: from the keys of the file)")
    add("--subtree", metavar="PREFIX", help="module of -a that is the network (default: found)")
    add("--source", default="ImageNet", help="data set that theta_A was trained on")
    add("--source_dir", required=True, help="folder of the source; validation images are used")
    add("--dataset", default="CIFAR-10", help=f"task B: {', '.join(DATASETS)}")
    add("--data_dir", required=True, help="folder of the data set; training images are used")
    add(
        "--max_samples",
        type=integer(1),
        help="training images, drawn evenly from the classes (default: all)",
    )
    add("--max_classes", type=integer(2), help="number of classes, the first ones (default: all)")
    add("--seed", type=integer(0), default=0, help="of that draw, and of the blocks of G")
    add(
        "--image_size",
        type=integer(32),
        help="pixels a side, of source and target alike (default: that of X.json beside -a)",
    )
    add("--csv", required=True, help="table to write the row into; made if it is not there")
    add_evaluation_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str], sources: Sources | None = None) -> None:
    """The command. sources: what is known of S, completed here, for several targets."""
    args = parse_args(argv)
    sources = {} if sources is None else sources
    start = time.monotonic()
    path = check_output(Path(args.csv))
    table = read_table(path, new=COLUMNS)
    check_columns(table, COLUMNS, "a table of factors")
    theta = checkpoint.read(paths.locate(args.a), subtree=args.subtree)
    arch = architecture(theta, args.arch)
    device = choose_device(args.device)

    # All that can be wrong with the data is said before the first image is read.
    source_set, source_classes, target_set, classes = load_both(args, theta.path, arch)
    row = {
        "dataset": name_of(args.dataset, args.data_dir),
        "checkpoint": theta.path.name,
        "sha256": sha256(theta.path),
        "arch": arch,
        "source": name_of(args.source, args.source_dir),
        "image_size": target_set.image_size,
        "samples": len(target_set),
        "classes": len(classes),
        "seed": args.seed,
    }

    model, head = load_network(theta, arch, image_size=target_set.image_size)
    check_source(theta, source_classes, f"{args.source} in {args.source_dir}")
    features_of = partial(
        features,
        model.to(device, memory_format=torch.channels_last),
        head,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        device=device,
    )
    # S first: its scale and its bandwidth are the units in which B is measured.
    key = (row["sha256"], args.source, args.source_dir, row["image_size"], args.seed)
    if key not in sources:
        batches = features_of(source_set, name=row["source"])
        sources[key] = measure_source(batches, len(source_set), seed=args.seed)
    source = sources[key]
    row["bandwidth2"] = source.bandwidth2
    check_ruler(table, row)
    batches = features_of(target_set, name=row["dataset"])
    measured, counted = measure_target(
        batches, target_set.labels, len(classes), source, seed=args.seed
    )

    row |= measured | {"seconds": round(time.monotonic() - start, 1)}
    replaced = upsert(path, {column: row[column] for column in COLUMNS}, key=KEY)
    report(row, set(counted.tolist()), classes)
    say(f"{path}: row {'replaced' if replaced else 'added'}")


def check_source(theta: checkpoint.Checkpoint, classes: list[str], source: str) -> None:
    """Warn where the classifier has another number of classes than the source."""
    outputs = num_classes(theta.partition)
    if outputs != len(classes):
        warn(
            f"{theta.path} has a classifier of {outputs} classes, but {source} has {len(classes)}; "
            "G is meant to be of the data set that theta_A was trained on"
        )


def load_both(
    args: argparse.Namespace, path_a: Path, arch: str
) -> tuple[Images, list[str], Images, list[str]]:
    """Return source validation images, source classes, target training images, target classes.

    Raises InputError for images that give no G or D.
    """
    size = image_size_of(path_a, args.image_size) or default_image_size(arch)
    _, source_set, source_classes = load(args.source, args.source_dir, image_size=size)
    target_set, _, classes = load(
        args.dataset,
        args.data_dir,
        image_size=size,
        max_samples=args.max_samples,
        max_classes=args.max_classes,
        seed=args.seed,
    )
    # Where no size is known every data set comes at its own: 32 for CIFAR, 224 for the others.
    if source_set.image_size != target_set.image_size:
        raise InputError(
            f"images of {args.source} have {source_set.image_size} pixels a side and those of "
            f"{args.dataset} {target_set.image_size}, whose features do not compare; give the "
            "--image_size of fine-tuning, which is then that of both"
        )
    if int(torch.bincount(target_set.labels).max()) < 2:
        raise InputError(
            f"no class of {args.dataset} has two training images, so there is no D; use more images"
        )
    block_layout(len(source_set), len(target_set))
    return source_set, source_classes, target_set, classes


def check_ruler(table: Table, row: Mapping[str, object]) -> None:
    """Raise InputError where another row has G by another ruler for the same network and source.

    row: the columns of KEY, and bandwidth2. With other source images under the same name, its G
    would not be comparable with those in the table.
    """
    rows = table.rows

    def same(columns: Sequence[str]) -> pd.Series:
        return (rows[[*columns]] == [str(row[name]) for name in columns]).all(axis=1)

    others = table._replace(rows=rows[same(RULER) & ~same(KEY)])
    for stored in read_column(others, "bandwidth2"):
        if not math.isclose(stored, row["bandwidth2"], rel_tol=SAME):
            raise InputError(
                f"{table.path} has the bandwidth2 {stored:.6g} for this checkpoint and "
                f"{row['source']}, but these source images give {row['bandwidth2']:.6g}: they are "
                "others, and G would not be comparable; give another file"
            )


def name_of(dataset: str, folder: str) -> str:
    """Name of the data set in the table; with the folder's for Folder, which may be any."""
    name = full_name(dataset)
    return f"{name}:{Path(folder).resolve().name}" if name == "Folder" else name


class Source(NamedTuple):
    """Scale, bandwidth h^2, and phi [k, p] of a random part of S in random order."""

    scale: Scale
    bandwidth2: float
    phi: Tensor


def measure_source(batches: Batches, number: int, *, seed: int) -> Source:
    """Scale, h^2 and a random part of the features of S, in one pass.

    batches: (indices int64 [n], phi [n, p]) of the `number` images, as `features` yields them.
    seed: for the random part alone; h^2 uses at most 2,000 images drawn with seed 0. Memory: 7,050
    p numbers of phi's type, 58 MB for p = 2048, and 33 MB for h^2.
    """
    chosen = FeatureSample(random_order(number, seed, side=0)[:CHOSEN], number)
    ruler = FeatureSample(random_order(number, 0, side=2)[:RULER_IMAGES], number)
    moments = Moments()
    for indices, phi in batches:
        moments.add(phi)
        chosen.add(indices, phi)
        ruler.add(indices, phi)
    scale = scale_of(moments)
    return Source(scale, bandwidth2(scale.z(ruler.result())), chosen.result())


def measure_target(
    batches: Batches, labels: Tensor, classes: int, source: Source, *, seed: int
) -> tuple[dict[str, Any], Tensor]:
    """Return (G, Frechet distance and D of B as columns, labels of the classes in D), in one pass.

    batches: as for `measure_source`. labels: int64 of all images of B. seed: for the images that G
    and the distance use; D uses all. Memory: 5,050 p numbers of phi's type, the same twice as
    float64 for G (41 and 165 MB for p = 2048), and that of ClassSums.
    """
    number = len(labels)
    chosen = FeatureSample(random_order(number, seed, side=1)[:CHOSEN], number)
    sums = ClassSums(labels, classes)
    for indices, phi in batches:
        chosen.add(indices, phi)
        sums.add(indices, source.scale.z(phi))
    s, b = source.scale.z(source.phi), source.scale.z(chosen.result())
    g, d, (distance, n) = gap(s, b, source.bandwidth2), diversity(sums), frechet(s, b)
    columns = {
        "G": g.value,
        "G_error": g.error,
        "G_blocks": g.blocks,
        "G_block_size": g.block_size,
        "frechet": distance,
        "frechet_n": n,
        "D": d.D,
        "D_error": d.D_error,
        "D_share": d.share,
        "D_share_error": d.share_error,
    }
    return columns, d.classes


def random_order(number: int, seed: int, *, side: int) -> Tensor:
    """0 ... number - 1 in a random order of each side.

    With one order for both, equal data sets would be compared image by image with themselves.
    """
    return torch.randperm(number, generator=generator_for(seed, side))


def report(row: dict[str, Any], counted: set[int], classes: list[str]) -> None:
    """Print a row with its errors; warn of classes that D leaves out. counted: labels in D."""
    left_out = [name for label, name in enumerate(classes) if label not in counted]
    if left_out:
        warn(f"{row['dataset']}: D is without {listing(left_out)}, of fewer than two images")
    say(
        f"{row['dataset']} seen by {row['checkpoint']} ({row['arch']}), source {row['source']}, "
        f"{row['image_size']} pixels a side, seed {row['seed']}"
    )
    layout = f"{row['G_blocks']} blocks of {row['G_block_size']} images a side"
    lines = (
        ("G", "G_error", f"{layout}; bandwidth2 {row['bandwidth2']:.4g}"),
        ("frechet", None, f"{row['frechet_n']} images a side; biased upward as p/n"),
        ("D", "D_error", f"mean over {len(counted)} of {len(classes)} classes"),
        ("D_share", "D_share_error", "of the variance of all images"),
    )
    for name, error, remark in lines:
        spread = f"+- {row[error]:.4f}" if error else ""
        say(f"  {name:8} {row[name]:9.4f} {spread:10}  {remark}")
    say(f"  {'classes':8} {row['classes']:9}")
    say(f"  {'images':8} {row['samples']:9}")
    say(f"  {'seconds':8} {row['seconds']:9.1f}")
