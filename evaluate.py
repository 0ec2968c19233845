"""Accuracy and loss of a checkpoint on the images of a data set, in float32.

    python evaluate.py --dataset CIFAR-10 --data_dir DIR -b cifar10_model_lr001.pth

The transform is that of validation in the training scripts, so on the validation images the
accuracy is the one that X.json records for the epoch kept, but for mixed precision. The image size
is that of the training, and the classes have to be, where X.json lies beside the file. With --split
train the training images are taken, without augmentation.
"""

import argparse
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from console import ArgumentParser, InputError, integer, run, say, warn
from datasets import DATASETS, load
from datasets.images import Images
from datasets.loader import make_loader
from measurement.results import read_record
from models import arch_name, build, checkpoint, default_image_size, paths
from models.checkpoint import Checkpoint
from models.comparison import architecture
from models.layers import num_classes
from models.pretrained import fitting
from safe_io import sibling
from training.device import choose_device, explain_errors
from training.engine import evaluate
from training.options import add_evaluation_arguments


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("--dataset", default="CIFAR-10", help=f"one of {', '.join(DATASETS)}")
    add("--data_dir", required=True, help="folder of the data set")
    add("-b", required=True, help="file to evaluate; a bare name: in ckpt/")
    add("--arch", type=arch_name, help="(default: from the keys of the file)")
    add("--subtree", metavar="PREFIX", help="module that is the network (default: found)")
    add(
        "--image_size",
        type=integer(32),
        help="pixels a side (default: that of X.json, else 32 for CIFAR and 224 for others)",
    )
    add("--split", choices=("train", "val"), default="val", help="which images")
    add("--max_classes", type=integer(2), help="use the first so many classes (default: all)")
    add("--max_samples", type=integer(1), help="images, drawn as finetune.py does (default: all)")
    add("--seed", type=integer(0), default=0, help="of that draw")
    add_evaluation_arguments(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    theta = checkpoint.read(paths.locate(args.b), subtree=args.subtree)
    device = choose_device(args.device)
    arch = architecture(theta, args.arch)
    if num_classes(theta.partition) is None:
        raise InputError(f"{theta.path} has no classifier, so there is nothing to evaluate")

    train_set, val_set, classes = load(
        args.dataset,
        args.data_dir,
        image_size=image_size_of(theta.path, args.image_size) or default_image_size(arch),
        max_classes=args.max_classes,
        max_samples=args.max_samples,
        seed=args.seed,
    )
    check_classes(theta, classes, f"{args.dataset} in {args.data_dir}")

    loss, accuracy, count = evaluate_file(
        theta,
        train_set if args.split == "train" else val_set,
        arch=arch,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        device=device,
    )
    say(
        f"{theta.path}: accuracy {accuracy:.2f} % of {count} images, loss {loss:.4f}, "
        f"{val_set.image_size} pixels a side"
    )


def image_size_of(path: Path, given: int | None) -> int | None:
    """Pixels a side at which a file is evaluated: as `given`, or else as X.json beside it says.

    None where neither is known. Warns where they differ.
    """
    recorded = read_record(path).get("image_size")
    if given and recorded not in (None, given):
        warn(
            f"{path} was trained at {recorded} pixels a side, as {sibling(path, '.json').name} "
            f"says; at --image_size {given} its outputs are others"
        )
    return given or recorded


def check_classes(theta: Checkpoint, classes: Sequence[str], data: str) -> None:
    """Raise InputError unless the outputs of a file are these classes, in this order.

    An output stands for a class by its position alone, so that a subset is an error, too. Names are
    compared where X.json beside the file has them. data: data set and folder, for the message.
    """
    number, names = num_classes(theta.partition), read_record(theta.path).get("class_names") or []
    # File systems differ in how they compose letters with accents.
    ours, theirs = ([unicodedata.normalize("NFC", x) for x in part] for part in (names, classes))
    unlike = [i for i, (x, y) in enumerate(zip(ours, theirs, strict=False)) if x != y]
    if number != len(classes):
        fits = 1 < number == len(names) < len(classes) and not unlike
        raise InputError(
            f"{theta.path} has a classifier of {number} classes, but {data} has {len(classes)}"
            + f"; the first {number} are those that it was trained on" * fits
        )
    if unlike:
        first, same = unlike[0], sorted(ours) == sorted(theirs)
        raise InputError(
            f"{theta.path} was trained on other classes{', the same in another order' * same}: "
            f"label {first} is {ours[first]} in {sibling(theta.path, '.json').name} and "
            f"{theirs[first]} in {data}; give its own data set"
        )


def evaluate_file(
    theta: Checkpoint,
    images: Images,
    *,
    arch: str,
    batch_size: int = 256,
    num_workers: int = 0,
    device: torch.device,
) -> tuple[float, float, int]:
    """Mean cross-entropy, accuracy in per cent, and number of images, those unreadable left out.

    Raises InputError where the file does not fit the network `arch`.
    """
    model = load_network(theta, arch, image_size=images.image_size)
    loader = make_loader(
        images, train=False, batch_size=batch_size, seed=0, num_workers=num_workers, device=device
    )
    with explain_errors("give a smaller --batch_size"):
        model.to(device)
        loss, accuracy = evaluate(model, loader, precision=None, device=device)
    return loss, accuracy, len(images) - len(loader.unreadable)


def load_network(theta: Checkpoint, arch: str, *, image_size: int) -> nn.Module:
    """The network of a file, classifier included. Raises InputError where it is another one."""
    model = build(arch, num_classes(theta.partition), image_size=image_size)
    model.load_state_dict(fitting(theta, model, image_size=image_size, arch=arch), strict=False)
    theta.check_unchanged()
    return model


if __name__ == "__main__":
    sys.exit(run(main, distributed=True))
