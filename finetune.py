"""Step 2: fine-tune a pre-trained network (theta_A) on a downstream task B.

Writes theta_FB, the parameters of the epoch with the best validation accuracy. The classifier is
new. From random_init_model.pth instead of theta_A it trains from scratch and gives theta_SB.

    python finetune.py --dataset CIFAR-10 --data_dir DIR -a ImageNet_model.pth \\
        -b cifar10_model_lr001.pth --max_epoch 100 --batch_size 18 --lr 0.01 --weight_decay 1e-4
"""

import argparse
import sys
from pathlib import Path

import torch

from cal_transferability import measure
from console import ArgumentParser, InputError, integer, number, run, say
from datasets import DATASETS, download, load
from datasets.loader import make_loader
from measurement.along import along_the_way
from models import ARCHS, build, checkpoint, default_image_size, paths
from models.checkpoint import Checkpoint
from models.layers import identify
from models.pretrained import freeze, load_pretrained
from safe_io import sha256
from training import distributed
from training.arguments import (
    add_run_arguments,
    argument_groups,
    fit_with_arguments,
    loading_options,
)
from training.device import choose_device
from training.record import refuse_overwriting
from training.runstate import run_of
from training.schedule import SCHEDULERS


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    task, optimisation, machine, output = argument_groups(parser)
    add = task
    add("--dataset", default="CIFAR-10", help=f"task B: {', '.join(DATASETS)}")
    add("--data_dir", required=True, help="folder of the data set")
    add("--download", action="store_true", help="get it, where torchvision can (default: off)")
    add(
        "--max_samples",
        type=integer(1),
        help="training images, drawn evenly from the classes (default: all)",
    )
    add("--max_classes", type=integer(2), help="use the first so many classes (default: all)")
    add("--arch", choices=ARCHS, metavar="ARCH", default="resnet50", help="see README.md")
    add("--image_size", type=integer(32), help="(default: 32 for CIFAR, else 224; ViT: 224)")
    add(
        "--freeze",
        metavar="PATTERN",
        help="parameters that stay as they are, as in 'layer[12].*' (default: none)",
    )
    add("-a", default="ImageNet_model.pth", help="file of theta_A; a bare name: in ckpt/")
    add(
        "-r",
        help="file of theta_r, to measure T after every epoch, in X.csv and X_layers.csv "
        "(default: off)",
    )
    add = optimisation
    add("--max_epoch", type=integer(1), default=100, help="epochs")
    add("--batch_size", type=integer(1), default=128, help="images a step")
    add("--lr", type=number(0, above=True), default=0.01, help="learning rate")
    add("--weight_decay", type=number(0), default=1e-4, help="of all parameters")
    add("--scheduler", choices=SCHEDULERS, default="cosine", help="cosine: down to 0")
    output("-b", default="finetuned_model.pth", help="file for theta_FB; a bare name: in ckpt/")
    add_run_arguments(optimisation, machine, output)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    path_a, path_b = paths.locate(args.a), paths.output_path(args.b)
    path_r = paths.locate(args.r) if args.r else None
    refuse_overwriting({"-a": path_a, "-r": path_r}, path_b, keep=args.keep)
    theta_a = checkpoint.read(path_a)
    arch_a = identify(theta_a.partition)
    if arch_a in ARCHS and arch_a != args.arch:
        raise InputError(f"{path_a} is a {arch_a}, not a {args.arch}; add --arch {arch_a}")

    device = choose_device(args.device, deterministic=args.deterministic)
    settings = {**vars(args), "parent_sha256": sha256(path_a)}
    with run_of(path_b, settings, resume=args.resume, overwrite=args.overwrite) as wanted:
        if wanted:
            train(args, theta_a, path_r, path_b, device)


def train(
    args: argparse.Namespace,
    theta_a: Checkpoint,
    path_r: Path | None,
    path_b: Path,
    device: torch.device,
) -> None:
    """Fine-tune theta_A as the command line says."""
    if args.download:
        # By the first process; the others find the files.
        distributed.on_first(lambda: download(args.dataset, args.data_dir))
    size = args.image_size or default_image_size(args.arch)
    train_set, val_set, classes = load(
        args.dataset,
        args.data_dir,
        image_size=size,
        max_classes=args.max_classes,
        max_samples=args.max_samples,
        seed=args.seed,
    )
    args.image_size = train_set.image_size

    torch.manual_seed(args.seed)
    model = build(args.arch, len(classes), image_size=args.image_size)
    fresh = load_pretrained(model, theta_a, image_size=args.image_size)
    say(f"{theta_a.path}: all tensors loaded but {', '.join(fresh)} (new: {len(classes)} classes)")
    freeze(model, args.freeze)

    measured = along_the_way(measure, path_r, theta_a, model) if path_r else None
    loading = loading_options(args, device)
    written = fit_with_arguments(
        args,
        model,
        make_loader(train_set, train=True, **loading),
        make_loader(val_set, train=False, **loading),
        path=path_b,
        device=device,
        facts={
            "script": "finetune.py",
            "classes": classes,
            "parent_sha256": sha256(theta_a.path),
        },
        measure=measured,
        theta_r=sha256(path_r) if path_r else None,
    )
    for path in written:
        say(f"theta_FB: {path.resolve()}")


if __name__ == "__main__":
    sys.exit(run(main))
