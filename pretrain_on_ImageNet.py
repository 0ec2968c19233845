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

from console import ArgumentParser, integer, number, run, say
from datasets import load
from models import DEFAULT, arch_name, build, checkpoint, paths
from safe_io import sha256
from training import distributed
from training.device import BATCH_ADVICE, choose_device, explain_errors
from training.engine import fit
from training.options import add_run_arguments, argument_groups
from training.record import refuse_overwriting
from training.resume import claim, remove_half_written, state_files
from training.run import make_loaders, set_up
from training.schedule import SCHEDULERS


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    task, optimisation, machine, output = argument_groups(parser)
    task(
        "--data_dir", help="folder with ILSVRC2012_img_train and ILSVRC2012_img_val, or train, val"
    )
    task("--arch", type=arch_name, default=DEFAULT, help="see README.md")
    task("--image_size", type=integer(32), default=224, help="pixels a side")
    optimisation("--max_epoch", type=integer(0), default=120, help="epochs; 0: write only theta_r")
    optimisation("--batch_size", type=integer(1), default=256, help="images a step")
    optimisation("--lr", type=number(0, above=True), default=0.1, help="learning rate")
    optimisation("--weight_decay", type=number(0), default=1e-4, help="of all parameters")
    optimisation(
        "--scheduler", choices=SCHEDULERS, default="step", help="step: / 10 every 40 epochs"
    )
    output("-r", default="random_init_model.pth", help="file for theta_r; a bare name: in ckpt/")
    output("-a", default="ImageNet_model.pth", help="file for theta_A; a bare name: in ckpt/")
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
        write_only_theta_r(args, path_r)
        return

    with claim(path_a, vars(args)) as to_train:
        if not to_train:
            return
        train_set, val_set, classes = load("ImageNet", args.data_dir, image_size=args.image_size)
        train_loader, val_loader = make_loaders(args, train_set, val_set, device)

        model = random_network(args, len(classes))
        # The settings of an interrupted run are compared later; until then its theta_r stays.
        resuming = args.resume and bool(state_files(path_a))
        sha256_r = distributed.on_first(lambda: write_theta_r(path_r, model, resuming=resuming))

        facts = {"script": "pretrain_on_ImageNet.py", "classes": classes, "parent_sha256": sha256_r}
        with explain_errors(BATCH_ADVICE, compiled=args.compile):
            pretraining = set_up(
                args, model, train_loader, val_loader, path=path_a, device=device, facts=facts
            )
            fit(
                pretraining,
                train_loader,
                val_loader,
                val_interval=args.val_interval,
                log_interval=args.log_interval,
                resume=args.resume,
            )
        say(f"theta_r: {path_r.resolve()}")
        for path in pretraining.record.kept:
            say(f"theta_A: {path.resolve()}")


def random_network(args: argparse.Namespace, num_classes: int) -> nn.Module:
    """The network at the random initialisation of --seed."""
    torch.manual_seed(args.seed)
    return build(args.arch, num_classes, image_size=args.image_size)


def write_only_theta_r(args: argparse.Namespace, path_r: Path) -> None:
    """Write theta_r for the classes of --data_dir, of ImageNet where it is not given."""
    num_classes = 1000
    if args.data_dir:
        num_classes = len(load("ImageNet", args.data_dir, image_size=args.image_size)[2])
    model = random_network(args, num_classes)
    distributed.on_first(lambda: write_theta_r(path_r, model))
    say(f"theta_r: {path_r.resolve()}")


def write_theta_r(path_r: Path, model: nn.Module, *, resuming: bool = False) -> str:
    """Write the random initialisation and return its SHA-256; one of a run to resume stays."""
    before = sha256(path_r) if path_r.is_file() else None
    if resuming and before:
        return before
    remove_half_written(path_r)
    written = checkpoint.write(path_r, model.state_dict())
    if before not in (None, written):
        say(f"{path_r} held other parameters; they are replaced by this theta_r")
    return written


if __name__ == "__main__":
    sys.exit(run(main, distributed=True, needs_console=False))
