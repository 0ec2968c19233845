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
from models import checkpoint
from models.checkpoint import Checkpoint
from models.layers import Layer, check_same_network, counted, identify, partition
from report import LayerResult, Result
from safe_io import ArgumentParser, InputError, atomic_write, check_output, run, warn


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
    # Half precision is compared in float32, where its values are exact.
    type_ = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
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
    for other in (r, b):
        check_same_network(a.shapes, other.shapes, name_a=str(a.path), name_other=str(other.path))
    grouped = partition(a.shapes)
    if grouped.family:
        # Only B needs to have a classifier for one to be listed.
        grouped = partition(b.shapes)

    def transferabilities(layers: Iterable[Layer]) -> list[LayerResult]:
        return [transferability(r.tensors, a.tensors, b.tensors, layer) for layer in layers]

    result = Result(
        b.path,
        layers=transferabilities(x for x in grouped.layers if x.tensors[0] in b.tensors),
        tensors=transferabilities(Layer(key, (key,)) for key in counted(grouped) if per_tensor),
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
    return result


def find_not_finite(checkpoints: tuple[Checkpoint, ...], layer: Layer) -> str:
    """Say which file and tensor holds NaN or infinity."""
    for file in checkpoints:
        for key in layer.tensors:
            if not torch.isfinite(file.tensors[key]).all():
                return f"{file.path}: {key} holds NaN or infinity; the training has diverged"
    return f"the values of {layer.name} are too large to compare"


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument
    add("-r", required=True, help="file of theta_r; a bare name is looked for in ckpt/ first")
    add("-a", required=True, help="file of theta_A")
    add("-b", required=True, nargs="+", help="files of theta_FB, all fine-tuned from theta_A")
    add("--per_tensor", action="store_true", help="list every counted weight by itself, too")
    add("--json", type=Path, metavar="FILE", help="write everything, unrounded, as JSON")
    add(
        "--plot",
        type=Path,
        metavar="FILE",
        help="figure to write (default: NAME_transferability.png beside -b)",
    )
    add("--no_plot", action="store_true", help="write no figure")
    add("--show", action="store_true", help="show the figure in a window")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    b_paths = [checkpoint.locate(name) for name in args.b]
    plot = args.plot or b_paths[0].with_name(f"{b_paths[0].stem}_transferability.png")
    outputs = [args.json] * bool(args.json) + [plot] * (not args.no_plot)
    for path in outputs:
        check_output(path)

    r, a = (checkpoint.read(checkpoint.locate(name)) for name in (args.r, args.a))
    if not partition(a.shapes).family:
        warn(
            f"{a.path} is of no known family: each weight is a layer of its own, and the last "
            f"one, {partition(a.shapes).head}, is taken for the classifier"
        )
    report.warn_of_other_parent(a.path, r.path)
    results = []
    for path in b_paths:
        results.append(measure(r, a, checkpoint.read(path), per_tensor=args.per_tensor))
        report.warn_of_other_parent(path, a.path)
        if len(b_paths) > 1:
            print(f"{path}:")
        report.print_result(results[-1])

    if args.json:
        arch = identify(a.shapes)
        text = report.to_json(results, arch=arch, r=r.path, a=a.path)
        atomic_write(args.json, text)
    if args.show or not args.no_plot:
        report.draw(results, None if args.no_plot else plot, show=args.show)
    for path in outputs:
        print(path.resolve())


if __name__ == "__main__":
    sys.exit(run(main))
