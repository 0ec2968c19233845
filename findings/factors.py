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
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from console import ArgumentParser, InputError, integer, say, warn
from datasets import DATASETS, full_name, load
from datasets.folder import listing
from datasets.images import Images
from datasets.transforms import generator_for
from models import arch_name, checkpoint, default_image_size, paths
from models.architecture import architecture
from models.layers import num_classes
from safe_io import check_output, sha256
from training.device import choose_device
from training.options import add_evaluation_arguments

from . import factor_table
from .features import Kept, features, load_network
from .gap import (
    BLOCK,
    MAX_BLOCKS,
    Gap,
    Moments,
    Scale,
    bandwidth2,
    block_layout,
    frechet,
    gap,
    scale_of,
)
from .variance import ClassSums, Diversity, diversity

# Up to one image in a hundred may be unreadable, and drops out.
CHOSEN = MAX_BLOCKS * BLOCK * 101 // 100
# h^2 is of so many source images, always the same ones: it must not change with --seed.
RULER_IMAGES = 2000

Batches = Iterable[tuple[Tensor, Tensor]]


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
    add("--max_classes", type=integer(2), help="use the first so many classes (default: all)")
    add("--seed", type=integer(0), default=0, help="of that draw, and of the blocks of G")
    add("--image_size", type=integer(32), help="pixels a side, of source and target alike")
    add("--csv", required=True, help="table to write the row into; made if it is not there")
    add_evaluation_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    args = parse_args(argv)
    start = time.monotonic()
    path = check_output(Path(args.csv))
    table = factor_table.read(path)
    theta = checkpoint.read(paths.locate(args.a), subtree=args.subtree)
    arch = architecture(theta, args.arch)
    device = choose_device(args.device)

    source_set, source_classes, target_set, classes = load_both(args, arch)
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
    batches = features_of(source_set, name=row["source"])
    source = measure_source(batches, len(source_set), seed=args.seed)
    row["bandwidth2"] = source.bandwidth2
    factor_table.check_ruler(path, table, row)
    batches = features_of(target_set, name=row["dataset"])
    found = measure_target(batches, target_set.labels, len(classes), source, seed=args.seed)

    row |= columns_of(found) | {"seconds": round(time.monotonic() - start, 1)}
    replaced = factor_table.put(path, row)
    report(row, found, classes)
    say(f"{path}: row {'replaced' if replaced else 'added'}")


def check_source(theta: checkpoint.Checkpoint, classes: list[str], source: str) -> None:
    """Warn where the classifier has another number of classes than the source."""
    outputs = num_classes(theta.partition)
    if outputs != len(classes):
        warn(
            f"{theta.path} has a classifier of {outputs} classes, but {source} has {len(classes)}; "
            "G is meant to be of the data set that theta_A was trained on"
        )


def load_both(args: argparse.Namespace, arch: str) -> tuple[Images, list[str], Images, list[str]]:
    """Return source validation images, source classes, target training images, target classes.

    Raises InputError for images that give no G or D.
    """
    size = args.image_size or default_image_size(arch)
    _, source_set, source_classes = load(args.source, args.source_dir, image_size=size)
    target_set, _, classes = load(
        args.dataset,
        args.data_dir,
        image_size=size,
        max_samples=args.max_samples,
        max_classes=args.max_classes,
        seed=args.seed,
    )
    # Without --image_size every data set comes at its own: 32 for CIFAR, 224 for the others.
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


def name_of(dataset: str, folder: str) -> str:
    """The data set as the table names it; Folder means a different one in every folder."""
    name = full_name(dataset)
    return f"{name}:{Path(folder).resolve().name}" if name == "Folder" else name


class Source(NamedTuple):
    """All that is needed of S.

    bandwidth2: h^2. phi: of a random part of S, [k, p], in random order.
    """

    scale: Scale
    bandwidth2: float
    phi: Tensor


def measure_source(batches: Batches, number: int, *, seed: int) -> Source:
    """Scale, h^2 and a random part of the features of S, in one pass.

    batches: (indices int64 [n], phi [n, p]) of the `number` images, as `features` gives them. seed:
    of the random part; scale and h^2 do not depend on it, h^2 being of at most 2,000 images drawn
    by seed 0. Memory: 7,050 p numbers of phi's type, 58 MB for p = 2048, and 33 MB for h^2.
    """
    chosen = Kept(random_order(number, seed, side=0)[:CHOSEN], number)
    ruler = Kept(random_order(number, 0, side=2)[:RULER_IMAGES], number)
    moments = Moments()
    for indices, phi in batches:
        moments.add(phi)
        chosen.add(indices, phi)
        ruler.add(indices, phi)
    scale = scale_of(moments)
    return Source(scale, bandwidth2(scale.z(ruler.result())), chosen.result())


class Factors(NamedTuple):
    """What is measured of a target; frechet: (distance, images a side)."""

    gap: Gap
    frechet: tuple[float, int]
    diversity: Diversity


def measure_target(
    batches: Batches, labels: Tensor, classes: int, source: Source, *, seed: int
) -> Factors:
    """G, Frechet distance and D of B, in one pass.

    batches: as for `measure_source`. labels: int64 of all images of B. seed: of the images that G
    and the distance are of; D is of all. Memory: 5,050 p numbers of phi's type, the same twice as
    float64 for G (41 and 165 MB for p = 2048), and that of ClassSums.
    """
    number = len(labels)
    chosen = Kept(random_order(number, seed, side=1)[:CHOSEN], number)
    sums = ClassSums(labels, classes)
    for indices, phi in batches:
        chosen.add(indices, phi)
        sums.add(indices, source.scale.z(phi))
    s, b = source.scale.z(source.phi), source.scale.z(chosen.result())
    return Factors(gap(s, b, source.bandwidth2), frechet(s, b), diversity(sums))


def random_order(number: int, seed: int, *, side: int) -> Tensor:
    """0 ... number - 1 in random order, another one for each side.

    Else S and B, were they the same images, would be compared each with itself.
    """
    return torch.randperm(number, generator=generator_for(seed, side))


def columns_of(found: Factors) -> dict[str, Any]:
    """The columns of the table that are measured of B."""
    return {
        "G": found.gap.value,
        "G_error": found.gap.error,
        "G_blocks": found.gap.blocks,
        "G_block_size": found.gap.block_size,
        "frechet": found.frechet[0],
        "frechet_n": found.frechet[1],
        "D": found.diversity.D,
        "D_error": found.diversity.D_error,
        "D_share": found.diversity.share,
        "D_share_error": found.diversity.share_error,
    }


def report(row: dict[str, Any], found: Factors, classes: list[str]) -> None:
    """Print a row with its errors; warn of classes that D leaves out."""
    counted = set(found.diversity.classes.tolist())
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
