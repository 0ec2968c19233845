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
from datasets.images import Images
from measurement.along import along_the_way
from measurement.results import read_record
from models import ARCHS, DEFAULT, arch_name, build, checkpoint, default_image_size, paths
from models.checkpoint import Checkpoint
from models.pretrained import freeze, load_pretrained
from safe_io import sha256
from training import distributed
from training.device import BATCH_ADVICE, choose_device, explain_errors
from training.engine import fit
from training.options import add_run_arguments, add_subset, add_switch, argument_groups, parse
from training.record import data_facts, refuse_overwriting
from training.resume import claim, is_finished
from training.run import goes_on, make_loaders, set_up
from training.schedule import SCHEDULERS


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    task, optimisation, machine, output = argument_groups(parser)
    task("--dataset", default="CIFAR-10", help=f"task B: {', '.join(DATASETS)}")
    task("--data_dir", required=True, help="folder of the data set")
    add_switch(task, "download", help="get it, where torchvision can (default: off)")
    add_subset(task)
    task(
        "--labels",
        choices=("true", "random"),
        default="true",
        help="random: the training labels permuted by --seed, a null; nothing is validated",
    )
    task("--arch", type=arch_name, default=DEFAULT, help="see README.md")
    task("--image_size", type=integer(32), help="(default: 32 for CIFAR, else 224; ViT: 224)")
    task(
        "--freeze",
        type=lambda pattern: pattern or None,
        metavar="PATTERN",
        help="parameters that stay as they are, as in 'layer[12].*'; '': none (default: none)",
    )
    task("-a", default="ImageNet_model.pth", help="file of theta_A; a bare name: in ckpt/")
    task("--subtree", metavar="PREFIX", help="module of -a that is the network (default: found)")
    task(
        "-r",
        help="file of theta_r, to measure T after every epoch, in X.csv and X_layers.csv "
        "(default: off)",
    )
    optimisation("--max_epoch", type=integer(1), default=100, help="epochs")
    optimisation("--batch_size", type=integer(1), default=128, help="images a step")
    optimisation("--lr", type=number(0, above=True), default=0.01, help="learning rate")
    optimisation("--weight_decay", type=number(0), default=1e-4, help="of all parameters")
    optimisation("--scheduler", choices=SCHEDULERS, default="cosine", help="cosine: down to 0")
    output("-b", default="finetuned_model.pth", help="file for theta_FB; a bare name: in ckpt/")
    add_run_arguments(optimisation, machine, output)
    args = parse(parser, argv, script="finetune.py")
    if args.labels == "random" and args.keep != "last":
        parser.error("--labels random validates nothing, so that no epoch is best; add --keep last")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    path_a, path_b = paths.locate(args.a), paths.output_path(args.b)
    path_r = paths.locate(args.r) if args.r else None
    refuse_overwriting({"-a": path_a, "-r": path_r}, path_b, keep=args.keep)
    theta_a = read_theta_a(path_a, args.arch, args.subtree)
    sha256_a = sha256(path_a)

    device = choose_device(args.device, deterministic=args.deterministic)
    with claim(path_b, {**vars(args), "parent_sha256": sha256_a}) as record:
        train_set, val_set, classes = read_data(args)
        args.image_size = train_set.image_size  # for X.json
        facts = {
            "script": "finetune.py",
            **distributed.on_first(lambda: data_facts(train_set, val_set, classes)),
            "parent_sha256": sha256_a,
        }
        if is_finished(path_b, record, facts):
            return
        say_image_sizes(path_a, args.image_size)
        train_loader, val_loader = make_loaders(args, train_set, val_set, device)

        torch.manual_seed(args.seed)
        model = build(args.arch, len(classes), image_size=args.image_size)
        fresh = load_pretrained(model, theta_a, image_size=args.image_size, arch=args.arch)
        theta_a.check_unchanged()
        say(f"{path_a}: all tensors loaded but {', '.join(fresh)} (new: {len(classes)} classes)")
        freeze(model, args.freeze)

        with explain_errors(BATCH_ADVICE, compiled=args.compile):
            fine_tuning = set_up(
                args,
                model,
                train_loader,
                path=path_b,
                device=device,
                facts=facts,
                measure=along_the_way(measure, path_r, theta_a, model) if path_r else None,
                sha256_r=sha256(path_r) if path_r else None,
            )
            fit(
                fine_tuning,
                train_loader,
                val_loader if args.labels == "true" else None,
                val_interval=args.val_interval,
                log_interval=args.log_interval,
                resume=goes_on(args),
            )
        for path in fine_tuning.record.kept:
            say(f"theta_FB: {path.resolve()}")


def read_theta_a(path: Path, arch: str, subtree: str | None) -> Checkpoint:
    """The pre-trained parameters. Raises InputError where they are of another network."""
    theta_a = checkpoint.read(path, subtree=subtree)
    if theta_a.network in ARCHS and arch in ARCHS and theta_a.network != arch:
        default = " (the default)" if arch == DEFAULT else ""
        raise InputError(
            f"{path} is a {theta_a.network}, not a {arch}{default}; add --arch {theta_a.network}"
        )
    return theta_a


def say_image_sizes(path_a: Path, image_size: int) -> None:
    """Say at which size theta_A was trained, where its record is there. Both sizes are usual."""
    recorded = read_record(path_a).get("image_size")
    if recorded is not None:
        say(f"{path_a} was trained at {recorded} pixels a side; this run takes {image_size}")


def read_data(args: argparse.Namespace) -> tuple[Images, Images, list[str]]:
    """The two splits and the classes of task B."""
    if args.download:
        # By the first process; the others find the files.
        distributed.on_first(lambda: download(args.dataset, args.data_dir))
    return load(
        args.dataset,
        args.data_dir,
        image_size=args.image_size or default_image_size(args.arch),
        max_classes=args.max_classes,
        max_samples=args.max_samples,
        random_labels=args.labels == "random",
        seed=args.seed,
    )


if __name__ == "__main__":
    sys.exit(run(main, distributed=True, needs_console=False))
