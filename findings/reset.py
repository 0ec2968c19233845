"""Which layers' fine-tuning counts: each layer of theta_FB set back, and the network evaluated.

    python -m findings reset -r R.pth -a A.pth -b B.pth --dataset CIFAR-10 --data_dir DIR

The counted weights of one layer at a time are set back to theta_A (or, with --to r, to theta_r),
and accuracy and loss on the validation images stand beside T and the rotation of the layer, with
their rank correlations: the functional companion that no statistic of the files replaces (Zhang,
Bengio, Singer, "Are All Layers Created Equal?", JMLR 2022). Normalisation, biases and the
classifier stay those of theta_FB.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cal_transferability import measure
from console import ArgumentParser, integer, say
from datasets import DATASETS, load
from datasets.loader import Loader, make_loader
from evaluate import check_classes, image_size_of, load_network
from measurement.checks import check_outputs
from measurement.inputs import read_pair
from measurement.plot import make_figure, save_figure
from measurement.results import LayerResult
from models import checkpoint, default_image_size, paths
from models.comparison import architecture
from safe_io import atomic_write
from training.device import choose_device, explain_errors
from training.engine import evaluate
from training.options import add_evaluation_arguments

from .published import spearman


class Reset(NamedTuple):
    """A layer that was set back: loss and accuracy (per cent) of the network, T and rotation."""

    layer: str
    loss: float
    accuracy: float
    transferability: float
    rotation: float | None


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings reset")
    add = parser.add_argument
    for option, name in (("-r", "theta_r"), ("-a", "theta_A"), ("-b", "theta_FB")):
        add(option, required=True, metavar="FILE", help=f"{name}; a bare name: in ckpt/")
    add("--dataset", default="CIFAR-10", help=f"one of {', '.join(DATASETS)}")
    add("--data_dir", required=True, help="folder of the data set")
    add(
        "--image_size",
        type=integer(32),
        help="pixels a side (default: that of X.json beside -b, else as finetune.py)",
    )
    add("--to", choices=("a", "r"), default="a", help="set back to theta_A or to theta_r")
    add("--json", type=Path, metavar="FILE", help="write everything, unrounded")
    add("--plot", type=Path, metavar="FILE", help="draw the rise of the loss over the layers")
    add_evaluation_arguments(parser)
    args = parser.parse_args(argv)

    files = [paths.locate(name) for name in (args.r, args.a, args.b)]
    outputs = check_outputs((args.json, args.plot), files)
    pair, theta_b = read_pair(args.r, args.a, arch=None), checkpoint.read(files[2])
    layers = [x for x in measure(pair.r, pair.a, theta_b).layers if x.companions]
    arch = architecture(theta_b, None)
    size = image_size_of(theta_b.path, args.image_size) or default_image_size(arch)
    _, images, classes = load(args.dataset, args.data_dir, image_size=size)
    check_classes(theta_b, classes, f"{args.dataset} in {args.data_dir}")

    device = choose_device(args.device)
    options = {"batch_size": args.batch_size, "num_workers": args.num_workers, "device": device}
    loader = make_loader(images, train=False, seed=0, **options)
    with explain_errors("give a smaller --batch_size"):
        model = load_network(theta_b, arch, image_size=images.image_size).to(device)
        loss, accuracy = evaluate(model, loader, precision=None, device=device)
        start = pair.a if args.to == "a" else pair.r
        resets = reset_layers(model, loader, layers, start.tensors, device=device)

    say(f"{theta_b.path}: accuracy {accuracy:.2f} % of {len(images)} images, loss {loss:.4f}")
    correlations = rank_correlations(resets)
    print_resets(resets, loss, correlations)
    if args.json:
        content = {**pair.facts, "b": str(theta_b.path), "to": args.to, "images": len(images)}
        content |= {"loss": loss, "accuracy": accuracy, "rank_correlations": correlations}
        content["layers"] = [reset._asdict() for reset in resets]
        atomic_write(args.json, json.dumps(content, indent=1) + "\n")
    if args.plot:
        draw(resets, loss, "\\theta_A" if args.to == "a" else "\\theta_r", args.plot)
    for path in outputs:
        say(path.resolve())


def reset_layers(
    model: nn.Module,
    loader: Loader,
    layers: Sequence[LayerResult],
    start: Mapping[str, Tensor],
    *,
    device: torch.device,
) -> list[Reset]:
    """Set one layer of `model` after the other back to `start`, and evaluate the network.

    model: theta_FB on `device`; it is unchanged in the end.
    """
    resets = []
    own = model.state_dict()
    for x in layers:
        kept = {key: own[key].clone() for key in x.layer.tensors}
        for key in kept:
            own[key].copy_(start[key])
        loss, accuracy = evaluate(model, loader, precision=None, device=device)
        for key, value in kept.items():
            own[key].copy_(value)
        rotation = x.companions.rotation
        resets.append(Reset(x.layer.name, loss, accuracy, x.transferability, rotation))
    return resets


def rank_correlations(resets: Sequence[Reset]) -> dict[str, float | None]:
    """Spearman's correlation of T and of the rotation with the loss, over the layers.

    None where one of them is the same in all layers.
    """
    losses = [reset.loss for reset in resets]
    return {
        name: None if math.isnan(value) else value
        for name in ("transferability", "rotation")
        for value in [spearman([getattr(reset, name) for reset in resets], losses)]
    }


def print_resets(
    resets: Sequence[Reset], loss: float, correlations: Mapping[str, float | None]
) -> None:
    """Print a row per layer, and the correlations."""
    say(f"{'set back':16}{'accuracy':>10}{'loss':>10}{'rise':>10}{'T':>10}{'rotation':>10}")
    for x in resets:
        say(
            f"{x.layer:16}{x.accuracy:10.2f}{x.loss:10.4f}{x.loss - loss:+10.4f}"
            f"{x.transferability:10.2f}{x.rotation or 0:10.2f}"
        )
    values = ("none" if v is None else f"{v:+.2f}" for v in correlations.values())
    say(
        "rank correlation of the rise of the loss with T {}, with the rotation {} "
        "({} layers)".format(*values, len(resets))
    )


def draw(resets: Sequence[Reset], loss: float, start: str, path: Path) -> None:
    """Draw the rise of the loss over the layers. start: theta_A or theta_r as mathematical text."""
    figure, (axes,) = make_figure(1)
    blocks = range(1, len(resets) + 1)
    axes.bar(blocks, [reset.loss - loss for reset in resets], color="C0")
    axes.axhline(0.0, color="0.6", linewidth=0.8)
    axes.set_xticks(blocks, [reset.layer for reset in resets], rotation=90, fontsize=7)
    axes.set_ylabel("Rise of the loss")
    axes.set_title(f"One layer of $\\theta_{{FB}}$ set back to ${start}$")
    save_figure(figure, path)
