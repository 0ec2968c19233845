"""Step 3: layer-wise transferability of pre-trained parameters.

    T_FB(theta_A) = D(theta_r, theta_FB) / D(theta_A, theta_FB)

theta_r is the random initialisation, theta_A the parameters after pre-training, theta_FB those
after fine-tuning theta_A on task B; D is the mean absolute difference of parameters. Source: Chen,
Li, Ding, Liu, "Rethinking Two Consensuses of the Transferability in Deep Learning", arXiv
2212.00399.

    python cal_transferability.py -r random_init_model.pth -a ImageNet_model.pth \\
        -b cifar10_model_lr001.pth

With the original authors' files it prints 18 values, from 3.44 (stem) to 1.0 (classifier), mean
7.79.
"""

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from console import ArgumentParser, InputError, complain, integer, run, say, warn
from measurement import plot, report
from measurement.checks import (
    check_comparable,
    check_measured,
    check_outputs,
    warn_of_doubts,
    warn_of_other_budgets,
    warn_of_other_parent,
)
from measurement.inputs import SHIPPED_PLOT, Pair, read_pair, shipped_files
from measurement.results import LayerResult, Result, group
from models import arch_name, checkpoint, paths
from models.checkpoint import Checkpoint
from models.layers import Layer, layers_to_compare, num_classes
from safe_io import atomic_write

# A state dict: key -> tensor on the CPU. Weights have the shape [outputs, inputs, ...].
Theta = Mapping[str, Tensor]


def transferability(theta_r: Theta, theta_a: Theta, theta_b: Theta, layer: Layer) -> LayerResult:
    """T_FB(theta_A) = D(theta_r, theta_FB) / D(theta_A, theta_FB) of one layer (arXiv 2212.00399).

    A larger value: fine-tuning moved the layer less far, compared with its distance from theta_r.
    The thetas hold the weights `layer.tensors`, each of one shape in all three, unless the layer is
    the classifier: it was replaced for task B, so there is no pre-trained one, and its value is 1
    by construction.
    """
    if layer.is_classifier:
        return LayerResult(layer, None, None, None, 1.0)
    d_rb = layer_distance(theta_r, theta_b, layer)
    d_ab = layer_distance(theta_a, theta_b, layer)
    d_ra = layer_distance(theta_r, theta_a, layer)
    return LayerResult(layer, d_rb, d_ab, d_ra, ratio(d_rb, d_ab))


def layer_distance(theta_x: Theta, theta_y: Theta, layer: Layer) -> float:
    """Mean over the weights of a layer, each counting alike whatever its shape, in [0, inf)."""
    return sum(distance(theta_x[key], theta_y[key]) for key in layer.tensors) / len(layer.tensors)


def distance(x: Tensor, y: Tensor) -> float:
    """D(x, y) = mean |x - y| over the elements of two tensors of one shape."""
    # Shorter types are compared in float32, where their values are exact.
    type_ = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    return (x.to(type_) - y.to(type_)).abs_().sum(dtype=torch.float64).item() / x.numel()


def ratio(d_rb: float, d_ab: float) -> float:
    """d_rb / d_ab; infinity for a layer that did not move, nan for 0 / 0."""
    if d_ab == 0:
        return math.inf if d_rb > 0 else math.nan
    return d_rb / d_ab


def measure(r: Checkpoint, a: Checkpoint, b: Checkpoint, *, per_tensor: bool = False) -> Result:
    """Transferability of every layer, in network order, the classifier last.

    per_tensor: also of every weight that counts, by itself. Raises InputError when the files are of
    different networks, hold values that are not finite, or when nothing moved between them.
    """
    r, b = r.like(a), b.like(a)
    check_comparable(r, a, b)
    layers, left_out = layers_to_compare(r.partition, a.partition, b.partition)
    if left_out:
        warn(f"auxiliary classifiers are left out: {', '.join(left_out)}")
    keys = [key for x in layers if per_tensor and not x.is_classifier for key in x.tensors]
    thetas = r.tensors, a.tensors, b.tensors
    result = Result(
        b.path,
        layers=[transferability(*thetas, layer) for layer in layers],
        tensors=[transferability(*thetas, Layer(key, (key,))) for key in keys],
    )
    check_measured(result, r, a, b)
    return result


def measure_files(
    pair: Pair, names: list[str], *, classes: int | None, per_tensor: bool, subtree: str | None
) -> list[Result]:
    """Measure every file of theta_FB against the same theta_r and theta_A, and print each result.

    With several files a bad one is named and passed over. Only numbers outlive the call: the
    parameters of one B at a time are in memory.
    """
    results = []
    for name in names:
        try:
            result = measure_file(
                pair, name, classes=classes, per_tensor=per_tensor, subtree=subtree
            )
        except InputError as error:
            if len(names) == 1:
                raise
            complain(error)
            continue
        results.append(result)
        if len(names) > 1:
            say(f"{result.b}:")
        report.print_result(result, substitute=pair.r_is_substitute)
    return results


def measure_file(
    pair: Pair, name: str, *, classes: int | None, per_tensor: bool, subtree: str | None
) -> Result:
    """Read one file of theta_FB and measure it; warn of what makes the numbers doubtful."""
    b = checkpoint.read(paths.locate(name), subtree=subtree, needed=False).like(pair.a)
    outputs = num_classes(b.partition)
    if classes not in (None, outputs):
        raise InputError(f"{b.path} has a classifier of {outputs} classes, not {classes}")
    result = measure(pair.r, pair.a, b, per_tensor=per_tensor)
    for theta in (pair.r, pair.a, b):
        theta.check_unchanged()
    warn_of_doubts(result, pair.a, b)
    warn_of_other_parent(b.path, pair.a.path)
    return result


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument_group("task", "without -r, -a and -b: the shipped files").add_argument
    add("-r", metavar="FILE", help="theta_r (a bare name: in ckpt/), or random:SEED")
    add("-a", metavar="FILE", help="theta_A")
    add("-b", nargs="+", metavar="FILE", help="files of theta_FB, or shell patterns")
    add("--arch", type=arch_name, help="network of -a (default: as its keys say)")
    add("--subtree", metavar="PREFIX", help="module that is the network, in files of several")
    add("--num_classes", type=integer(1), metavar="K", help="classes -b must have (default: any)")
    add("--group", action="store_true", help="-b are seeds of one experiment: average them")

    output = parser.add_argument_group("output", "without options: printed values, and a figure")
    add = output.add_argument
    add("--per_tensor", action="store_true", help="also every weight that counts, by itself")
    add("--json", type=Path, metavar="FILE", help="write everything, unrounded")
    add("--csv", type=Path, metavar="FILE", help="write a row per file and layer")
    add("--plot", type=Path, metavar="FILE", help="(default: NAME_transferability.png beside -b)")
    add("--no_plot", action="store_true", help="write no figure")
    add("--show", action="store_true", help="show the figure in a window, too")
    args = parser.parse_args(argv)
    if args.plot and args.no_plot:
        parser.error("--plot and --no_plot exclude each other")
    missing = [f"-{key}" for key in "rab" if getattr(args, key) is None]
    if len(missing) in (1, 2):
        parser.error(
            f"{' and '.join(missing)} missing: give all of -r, -a and -b, or none of them to "
            "measure the shipped files"
        )
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.b is None:
        args.r, args.a, args.b = shipped_files()
        args.plot = None if args.no_plot else args.plot or SHIPPED_PLOT
    names = paths.expand(args.b)
    inputs = [paths.path_of(name) for name in (args.r, args.a, *names)]
    outputs = check_outputs((args.json, args.csv, args.plot), inputs)
    if args.group and len(names) < 2:
        raise InputError("--group needs two files of -b at least")

    pair = read_pair(args.r, args.a, arch=args.arch, subtree=args.subtree)
    results = measure_files(
        pair,
        names,
        classes=args.num_classes,
        per_tensor=args.per_tensor,
        subtree=args.subtree,
    )
    facts = pair.facts
    del pair  # the figure needs memory, too
    if not results:
        return 2
    if len(names) > 1:
        report.print_table(results)
        warn_of_other_budgets(results)
    seeds = group(results) if args.group else None
    if seeds:
        report.print_group(seeds)

    if not args.plot and not args.no_plot:
        args.plot = plot.default_path(results)
        outputs = check_outputs((args.json, args.csv, args.plot), inputs)
    if args.json:
        atomic_write(args.json, report.to_json(facts, results, seeds))
    if args.csv:
        atomic_write(args.csv, report.to_csv(results))
    if args.plot or args.show:
        plot.draw(results, seeds, args.plot, show=args.show)
    for path in outputs:
        say(path.resolve())
    return 0 if len(results) == len(names) else 1


if __name__ == "__main__":
    sys.exit(run(main))
