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
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

import report
from models import ARCHS, checkpoint
from models.checkpoint import Checkpoint
from models.layers import Layer, auxiliary_heads, check_same_network, num_classes, partition
from parameters import (
    SHIPPED_A,
    SHIPPED_B,
    SHIPPED_R,
    Pair,
    check_shipped,
    find_not_finite,
    read_pair,
)
from report import LayerResult, Result
from safe_io import (
    ArgumentParser,
    InputError,
    atomic_write,
    check_output,
    complain,
    integer,
    run,
    say,
    warn,
)


def transferability(theta_r: dict, theta_a: dict, theta_b: dict, layer: Layer) -> LayerResult:
    """T_FB(theta_A) = D(theta_r, theta_FB) / D(theta_A, theta_FB) of one layer (arXiv 2212.00399).

    A larger value: fine-tuning moved the layer less far, compared with its distance from theta_r.
    The classifier was replaced for task B, so there is no pre-trained one: its value is 1 by
    construction.
    """
    if layer.is_classifier:
        return LayerResult(layer, None, None, None, 1.0)
    d_rb = layer_distance(theta_r, theta_b, layer)
    d_ab = layer_distance(theta_a, theta_b, layer)
    d_ra = layer_distance(theta_r, theta_a, layer)
    return LayerResult(layer, d_rb, d_ab, d_ra, ratio(d_rb, d_ab))


def layer_distance(theta_x: dict, theta_y: dict, layer: Layer) -> float:
    """Mean over the weights of a layer, each counting alike whatever its size."""
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

    Raises InputError when the files are of different networks, hold values that are not finite, or
    when nothing moved between them.
    """
    if a.path.resolve() == b.path.resolve():
        raise InputError(f"-a and -b are the same file {a.path}; nothing can have moved")
    for other in (r, b):
        check_same_network(a.shapes, other.shapes, name_a=str(a.path), name_other=str(other.path))
    grouped = partition(a.shapes)
    if grouped.family:
        # Only B needs to have a classifier for one to be listed.
        grouped = partition(b.shapes)
    left_out = dict.fromkeys(key for x in (r, b) for key in auxiliary_heads(a.shapes, x.shapes))
    if left_out:
        warn(f"auxiliary classifiers are left out: {', '.join(left_out)}")
    layers = [x for x in grouped.layers if x.tensors[0] in b.tensors and x.name not in left_out]

    def transferabilities(layers: Iterable[Layer]) -> list[LayerResult]:
        return [transferability(r.tensors, a.tensors, b.tensors, layer) for layer in layers]

    result = Result(
        b.path,
        layers=transferabilities(layers),
        tensors=transferabilities(
            Layer(key, (key,))
            for layer in layers
            for key in layer.tensors
            if per_tensor and not layer.is_classifier
        ),
    )
    measured = [x for x in result.layers if not x.layer.is_classifier]
    for x in measured:
        if not math.isfinite(x.distance_r_b + x.distance_a_b + x.distance_r_a):
            raise InputError(find_not_finite((r, a, b), x.layer))
    if not measured:
        raise InputError(f"{a.path} has no layers to compare beside a classifier")
    if all(x.distance_r_a == 0 for x in measured):
        raise InputError(f"{r.path} and {a.path} hold the same parameters; check -r and -a")
    if all(x.distance_a_b == 0 for x in measured):
        raise InputError(f"{a.path} and {b.path} hold the same parameters; check -a and -b")
    # No sum or mean of values below this overflows.
    if not result.values() or max(result.values()) > 1e100:
        raise InputError(f"{b.path} hardly differs from {a.path}: T is too large for a number")
    return result


def measure_files(
    pair: Pair, names: list[str], *, classes: int | None, per_tensor: bool
) -> list[Result]:
    """Measure every file of theta_FB against the same theta_r and theta_A, and print each result.

    With several files a bad one is named and passed over. Only numbers outlive the call: the
    parameters of one B at a time are in memory.
    """
    results = []
    for name in names:
        try:
            result = measure_file(pair, name, classes=classes, per_tensor=per_tensor)
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


def measure_file(pair: Pair, name: str, *, classes: int | None, per_tensor: bool) -> Result:
    """Read one file of theta_FB and measure it; warn of what makes the numbers doubtful."""
    b = checkpoint.read(checkpoint.locate(name))
    if classes not in (None, num_classes(b.shapes)):
        found = num_classes(b.shapes)
        raise InputError(f"{b.path} has a classifier of {found} classes, not {classes}")
    result = measure(pair.r, pair.a, b, per_tensor=per_tensor)
    report.warn_of_doubts(result, pair.a, b)
    report.warn_of_other_parent(b.path, pair.a.path)
    return result


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("-r", help="file of theta_r (a bare name: in ckpt/), or random:SEED")
    add("-a", help="file of theta_A")
    add("-b", nargs="+", metavar="FILE", help="files of theta_FB, or shell patterns")
    add("--group", action="store_true", help="the files of -b are seeds of one experiment")
    add("--arch", choices=ARCHS, metavar="ARCH", help="overrules what the keys of A say")
    add("--num_classes", type=integer(1), help="check that B has so many classes")
    add("--per_tensor", action="store_true", help="list every counted weight by itself, too")
    add("--json", type=Path, metavar="FILE", help="write everything, unrounded, as JSON")
    add("--csv", type=Path, metavar="FILE", help="write a row per file and layer")
    add("--plot", type=Path, metavar="FILE", help="(default: NAME_transferability.png beside -b)")
    add("--no_plot", action="store_true", help="write no figure")
    add("--show", action="store_true", help="show the figure in a window")
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
        check_shipped()
        args.r, args.a, args.b = str(SHIPPED_R), str(SHIPPED_A), list(map(str, SHIPPED_B))
        if not args.no_plot and args.plot is None:
            args.plot = checkpoint.CKPT_DIR / "shipped_transferability.png"
    names = checkpoint.expand(args.b)
    inputs = [checkpoint.place(name) for name in (args.r, args.a, *names)]
    outputs = [check_output(path) for path in (args.json, args.csv, args.plot) if path]
    report.check_outputs(outputs, inputs)
    if args.group and len(names) < 2:
        raise InputError("--group needs two files of -b at least")

    pair = read_pair(args.r, args.a, arch=args.arch)
    results = measure_files(pair, names, classes=args.num_classes, per_tensor=args.per_tensor)
    facts = pair.facts
    del pair  # the figure needs memory, too
    if not results:
        return 2
    if len(names) > 1:
        report.print_table(results)
        report.warn_of_other_budgets(results)
    seeds = report.group(results) if args.group else None
    if seeds:
        report.print_group(seeds)

    if args.plot is None and not args.no_plot:
        b = results[0].b
        args.plot = check_output(b.with_name(f"{b.stem}_transferability.png"))
        outputs.append(args.plot)
        report.check_outputs(outputs, inputs)
    if args.json:
        atomic_write(args.json, report.to_json(facts, results, seeds))
    if args.csv:
        atomic_write(args.csv, report.to_csv(results))
    if args.plot or args.show:
        report.draw(results, seeds, args.plot, show=args.show)
    for path in outputs:
        say(path.resolve())
    return 0 if len(results) == len(names) else 1


if __name__ == "__main__":
    sys.exit(run(main))
