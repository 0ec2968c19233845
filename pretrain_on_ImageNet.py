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

from console import ArgumentParser, InputError, integer, number, run, say
from datasets import load
from datasets.images import Images
from models import DEFAULT, arch_name, build, checkpoint, paths
from safe_io import locked, sha256
from training import distributed
from training.device import BATCH_ADVICE, choose_device, explain_errors
from training.engine import fit
from training.options import add_run_arguments, add_subset, argument_groups, parse
from training.record import data_facts, refuse_overwriting
from training.resume import claim, is_finished, remove_half_written, replace_advice, state_files
from training.run import goes_on, make_loaders, set_up
from training.schedule import SCHEDULERS

# Classes of ILSVRC-2012.
IMAGENET = 1000


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    task, optimisation, machine, output = argument_groups(parser)
    task(
        "--data_dir", help="folder with ILSVRC2012_img_train and ILSVRC2012_img_val, or train, val"
    )
    add_subset(task)
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
    args = parse(parser, argv, script="pretrain_on_ImageNet.py")
    if args.data_dir is None and args.max_epoch > 0:
        parser.error("--data_dir is missing: the folder of ImageNet")
    if args.data_dir is None and (args.max_classes or 0) > IMAGENET:
        parser.error(f"--max_classes {args.max_classes}: ImageNet has {IMAGENET} classes")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    path_r, path_a = paths.output_path(args.r), paths.output_path(args.a)
    refuse_overwriting({"-r": path_r}, path_a, keep=args.keep)
    device = choose_device(args.device, deterministic=args.deterministic)
    if args.max_epoch == 0:
        write_only_theta_r(args, path_r)
        return

    with claim(path_a, vars(args)) as record:
        train_set, val_set, classes = read_data(args)
        train_loader, val_loader = make_loaders(args, train_set, val_set, device)

        model = random_network(args, len(classes))
        # The settings of an interrupted run are compared later; until then its theta_r stays.
        resuming = bool(record) or (goes_on(args) and bool(state_files(path_a)))
        facts = {
            "script": "pretrain_on_ImageNet.py",
            **distributed.on_first(lambda: data_facts(train_set, val_set, classes)),
            "parent_sha256": write_theta_r(args, path_r, model, resuming=resuming),
        }
        if is_finished(path_a, record, facts):
            return
        with explain_errors(BATCH_ADVICE, compiled=args.compile):
            pretraining = set_up(args, model, train_loader, path=path_a, device=device, facts=facts)
            fit(
                pretraining,
                train_loader,
                val_loader,
                val_interval=args.val_interval,
                log_interval=args.log_interval,
                resume=goes_on(args),
            )
        say(f"theta_r: {path_r.resolve()}")
        for path in pretraining.record.kept:
            say(f"theta_A: {path.resolve()}")


def read_data(args: argparse.Namespace) -> tuple[Images, Images, list[str]]:
    """The two splits and the classes of ImageNet."""
    return load(
        "ImageNet",
        args.data_dir,
        image_size=args.image_size,
        max_classes=args.max_classes,
        max_samples=args.max_samples,
        seed=args.seed,
    )


def random_network(args: argparse.Namespace, num_classes: int) -> nn.Module:
    """The network at the random initialisation of --seed."""
    torch.manual_seed(args.seed)
    return build(args.arch, num_classes, image_size=args.image_size)


def write_only_theta_r(args: argparse.Namespace, path_r: Path) -> None:
    """Write theta_r for the classes of --data_dir, of ImageNet where it is not given."""
    num_classes = len(read_data(args)[2]) if args.data_dir else args.max_classes or IMAGENET
    model = random_network(args, num_classes)
    write_theta_r(args, path_r, model)
    say(f"theta_r: {path_r.resolve()}")


def write_theta_r(
    args: argparse.Namespace, path_r: Path, model: nn.Module, *, resuming: bool = False
) -> str:
    """Write the random initialisation; returns the SHA-256 of its file.

    A file that holds it already stays, and so does that of a run to resume. Of several processes
    the first one writes. Raises InputError where other parameters are there, without --overwrite.
    """

    def write() -> str:
        # Of two runs with one theta_r the second finds what the first has written.
        with locked(path_r, wait=True):
            remove_half_written(path_r)
            if path_r.exists():
                if resuming or checkpoint.holds(path_r, model.state_dict()):
                    return sha256(path_r)
                if not args.overwrite:
                    raise InputError(
                        f"{path_r} holds other parameters than this theta_r; {replace_advice()}"
                    )
                say(f"{path_r} held other parameters; they are replaced by this theta_r")
            return checkpoint.write(path_r, model.state_dict())

    return distributed.on_first(write)


if __name__ == "__main__":
    sys.exit(run(main, distributed=True, needs_console=False))
