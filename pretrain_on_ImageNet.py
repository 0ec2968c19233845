"""Step 1: train a network on ImageNet (task A) from its random initialisation.

Writes theta_r, the random initialisation, before the first step, and theta_A, the parameters of the
epoch with the best validation accuracy.

    python pretrain_on_ImageNet.py --seed 0 --data_dir DIR --max_epoch 120 \\
        --batch_size 256 --lr 0.1 --weight_decay 1e-4 \\
        -r random_init_model.pth -a ImageNet_model.pth
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from console import ArgumentParser, integer, number, run, say
from datasets import load
from datasets.loader import make_loader
from models import ARCHS, build, checkpoint, paths
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
from training.runstate import remove_half_written, run_of, state_files
from training.schedule import SCHEDULERS


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    task, optimisation, machine, output = argument_groups(parser)
    add = task
    add("--data_dir", help="folder with ILSVRC2012_img_train and ILSVRC2012_img_val, or train, val")
    add("--arch", choices=ARCHS, metavar="ARCH", default="resnet50", help="see README.md")
    add("--image_size", type=integer(32), default=224, help="pixels a side")
    add = optimisation
    add("--max_epoch", type=integer(0), default=120, help="epochs; 0: write only theta_r")
    add("--batch_size", type=integer(1), default=256, help="images a step")
    add("--lr", type=number(0, above=True), default=0.1, help="learning rate")
    add("--weight_decay", type=number(0), default=1e-4, help="of all parameters")
    add("--scheduler", choices=SCHEDULERS, default="step", help="step: / 10 every 40 epochs")
    add = output
    add("-r", default="random_init_model.pth", help="file for theta_r; a bare name: in ckpt/")
    add("-a", default="ImageNet_model.pth", help="file for theta_A; a bare name: in ckpt/")
    add_run_arguments(optimisation, machine, output)
    args = parser.parse_args(argv)
    if args.data_dir is None and args.max_epoch > 0:
        parser.error("--data_dir is missing: the folder of ImageNet")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    path_r, path_a = paths.output_path(args.r), paths.output_path(args.a)
    refuse_overwriting({"-r": path_r}, path_a, keep=args.keep)

    device = choose_device(args.device, deterministic=args.deterministic)
    if args.max_epoch == 0:
        initialise(args, path_r, num_classes=len(read_data(args)[2]) if args.data_dir else 1000)
        say(f"theta_r: {path_r.resolve()}")
        return
    with run_of(path_a, vars(args), resume=args.resume, overwrite=args.overwrite) as wanted:
        if wanted:
            train(args, path_r, path_a, device)


def train(args: argparse.Namespace, path_r: Path, path_a: Path, device: torch.device) -> None:
    """Write theta_r, and train from it as the command line says."""
    train_set, val_set, classes = read_data(args)
    loading = loading_options(args, device)
    train_loader = make_loader(train_set, train=True, **loading)
    val_loader = make_loader(val_set, train=False, **loading)

    resuming = args.resume and bool(state_files(path_a))
    model, sha256_r = initialise(args, path_r, num_classes=len(classes), resuming=resuming)
    written = fit_with_arguments(
        args,
        model,
        train_loader,
        val_loader,
        path=path_a,
        device=device,
        facts={
            "script": "pretrain_on_ImageNet.py",
            "classes": classes,
            "parent_sha256": sha256_r,
        },
    )
    say(f"theta_r: {path_r.resolve()}")
    for path in written:
        say(f"theta_A: {path.resolve()}")


def read_data(args: argparse.Namespace) -> tuple[Dataset, Dataset, list[str]]:
    """The two splits and the classes of ImageNet."""
    return load("ImageNet", args.data_dir, image_size=args.image_size)


def initialise(
    args: argparse.Namespace, path_r: Path, *, num_classes: int, resuming: bool = False
) -> tuple[nn.Module, str]:
    """Build the network, write its random initialisation theta_r; return it and the SHA-256.

    resuming: an interrupted run goes on; its theta_r is left as it is, since it is known only later
    whether the settings are those of the run.
    """
    torch.manual_seed(args.seed)
    model = build(args.arch, num_classes, image_size=args.image_size)

    def write() -> str:
        before = sha256(path_r) if path_r.is_file() else None
        if resuming and before:
            return before
        remove_half_written(path_r)
        written = checkpoint.write(path_r, model.state_dict())
        if before not in (None, written):
            say(f"{path_r} held other parameters; they are replaced by this theta_r")
        return written

    return model, distributed.on_first(write)


if __name__ == "__main__":
    sys.exit(run(main))
