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
from statistics import fmean

from torch import Tensor

from console import ArgumentParser, InputError, complain, integer, run, say
from measurement import plot, report
from measurement.checks import (
    check_comparable,
    check_measured,
    check_outputs,
    check_seeds,
    precision_and_signs,
    warn_of_doubts,
    warn_of_left_out,
    warn_of_other_budgets,
    warn_of_other_parent,
)
from measurement.companions import (
    Agreement,
    PairSums,
    Sums,
    companions,
    compare,
    compare_pair,
    one_thread,
    total,
)
from measurement.inputs import SHIPPED_PLOT, Pair, read, read_pair, shipped_files
from measurement.results import Group, LayerResult, Result, group
from models import arch_name, checkpoint, paths
from models.checkpoint import Checkpoint
from models.comparison import layers_to_compare
from models.layers import Choice, Layer, num_classes
from safe_io import atomic_write

# A state dict: key -> tensor on the CPU. Weights have the shape [outputs, inputs, ...].
Theta = Mapping[str, Tensor]
# Key -> sums of that weight in theta_r and theta_A.
Pairs = dict[str, PairSums]


def transferability(
    theta_r: Theta, theta_a: Theta, theta_b: Theta, layer: Layer, pairs: Pairs | None = None
) -> LayerResult:
    """T_FB(theta_A) = D(theta_r, theta_FB) / D(theta_A, theta_FB) of one layer (arXiv 2212.00399).

    D of two layers is the mean over their weights, each counting alike whatever its shape, of the
    mean absolute difference. T is one over the distance of fine-tuning, in units of the distance of
    pre-training. The thetas hold the weights `layer.tensors`, each of one shape in all three,
    unless the layer is the classifier: it was replaced for task B, so there is no pre-trained one,
    and its value is 1 by construction. pairs: see `sums_of`.
    """
    if layer.is_classifier:
        return LayerResult(layer, None, None, None, 1.0)
    weights = [sums_of(key, theta_r, theta_a, theta_b, pairs) for key in layer.tensors]
    d_rb = fmean(w.abs_rb / w.count for w in weights)
    d_ab = fmean(w.abs_ab / w.count for w in weights)
    d_ra = fmean(w.abs_ra / w.count for w in weights)
    return LayerResult(layer, d_rb, d_ab, d_ra, ratio(d_rb, d_ab), companions(total(weights)))


def sums_of(key: str, theta_r: Theta, theta_a: Theta, theta_b: Theta, pairs: Pairs | None) -> Sums:
    """Sums over one weight: abs_rb of |theta_r - theta_FB| and so on, and of products.

    pairs: the sums of theta_r and theta_A, key -> sums, completed here: for several theta_FB.
    """
    r, a, b = theta_r[key], theta_a[key], theta_b[key]
    pairs = {} if pairs is None else pairs
    if key not in pairs:
        pairs[key] = compare_pair(r, a)
    return compare(r, a, b, pairs[key])


def ratio(d_rb: float, d_ab: float) -> float:
    """d_rb / d_ab; infinity for a layer that did not move, nan for 0 / 0."""
    if d_ab == 0:
        return math.inf if d_rb > 0 else math.nan
    return d_rb / d_ab


def measure(
    theta_r: Checkpoint | Theta,
    theta_a: Checkpoint | Theta,
    theta_b: Checkpoint | Theta,
    *,
    per_tensor: bool = False,
    pairs: Pairs | None = None,
) -> Result:
    """Transferability of every layer, in network order, the classifier last.

    theta_r, theta_a, theta_b: checkpoints, or plain dicts of tensors. per_tensor: also of every
    weight that counts, by itself. pairs: see `sums_of`. Raises InputError when they are of
    different networks, hold values that are not finite, or when nothing moved between them.
    """
    thetas = {"theta_r": theta_r, "theta_a": theta_a, "theta_b": theta_b}
    r, a, b = (checkpoint.of_mapping(theta, name) for name, theta in thetas.items())
    r, b = r.like(a), b.like(a)
    check_comparable(r, a, b)
    layers, further_heads = layers_to_compare(r.partition, a.partition, b.partition)
    warn_of_left_out(r, a, b, further_heads)
    keys = [key for x in layers if per_tensor and not x.is_classifier for key in x.tensors]
    pairs = {} if pairs is None else pairs
    tensors = r.tensors, a.tensors, b.tensors
    with one_thread():
        result = Result(
            b.path if isinstance(theta_b, Checkpoint) else None,
            layers=[transferability(*tensors, layer, pairs) for layer in layers],
            tensors=[transferability(*tensors, Layer(key, (key,)), pairs) for key in keys],
        )
    check_measured(result, r, a, b)
    return result


def measure_files(
    pair: Pair,
    names: list[str],
    *,
    classes: int | None,
    per_tensor: bool,
    subtree: str | None = None,
    agreement: Agreement | None = None,
) -> list[Result]:
    """Measure every file of theta_FB against the same theta_r and theta_A, and print each result.

    With several files a bad one is named and passed over. Only numbers outlive the call: the
    parameters of one B at a time are in memory. agreement: of the seeds, is given every file.
    """
    results = []
    options = {"classes": classes, "per_tensor": per_tensor, "subtree": subtree}
    options |= {"agreement": agreement, "pairs": {}}
    for name in names:
        try:
            result = measure_file(pair, name, **options)
        except InputError as error:
            if len(names) == 1:
                raise
            complain(error)
            continue
        results.append(result)
        if len(names) > 1:
            say(f"{result.b}:")
        report.print_result(result, pair.a.path, substitute=pair.r_is_substitute)
    return results


def measure_file(
    pair: Pair,
    name: str,
    *,
    classes: int | None,
    per_tensor: bool,
    subtree: str | None,
    agreement: Agreement | None,
    pairs: Pairs,
) -> Result:
    """Read one file of theta_FB and measure it; warn of what makes the numbers doubtful."""
    b = read(paths.locate(name), pair.a.choice, subtree=subtree, needed=False).like(pair.a)
    outputs = num_classes(b.partition)
    if classes not in (None, outputs):
        raise InputError(f"{b.path} has a classifier of {outputs} classes, not {classes}")
    result = measure(pair.r, pair.a, b, per_tensor=per_tensor, pairs=pairs)
    for theta in (pair.r, pair.a, b):
        theta.check_unchanged()
    warn_of_doubts(result, pair.a, b)
    warn_of_other_parent(b.path, pair.a.path)
    if agreement is not None:
        add_movements(agreement, result, pair.a, b)
    return result


def add_movements(agreement: Agreement, result: Result, a: Checkpoint, b: Checkpoint) -> None:
    """Add the file, and what fine-tuning did to every layer that counts, to those of the seeds."""
    weights = [b.tensors[key] for x in result.layers for key in x.layer.tensors]
    agreement.signs.append(precision_and_signs(weights))
    with one_thread():
        for x in result.layers:
            if x.in_mean:
                weights = ([theta.tensors[key] for key in x.layer.tensors] for theta in (a, b))
                agreement.add(x.layer.name, *weights, x.companions)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    add = parser.add_argument_group("task", "without -r, -a and -b: the shipped files").add_argument
    add("-r", metavar="FILE", help="theta_r (a bare name: in ckpt/), or random:SEED")
    add("-a", metavar="FILE", help="theta_A")
    add(
        "-b",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="files of theta_FB, or shell patterns",
    )
    add("--arch", type=arch_name, help="network of -a (default: as its keys say)")
    add("--subtree", metavar="PREFIX", help="module that is the network, in files of several")
    add("--num_classes", type=integer(1), metavar="K", help="classes -b must have (default: any)")
    add("--head", metavar="MODULE", help="classifier, or none (default: by shapes and names)")
    add(
        "--ignore",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATTERN",
        help="tensors that do not count",
    )
    add("--group", action="store_true", help="-b are seeds of one experiment: average them")

    output = parser.add_argument_group("output", "without options: printed values, and a figure")
    add = output.add_argument
    add("--per_tensor", action="store_true", help="also every weight that counts, by itself")
    add("--json", type=Path, metavar="FILE", help="write everything, unrounded")
    add("--csv", type=Path, metavar="FILE", help="write a row per file and layer")
    add("--plot", type=Path, metavar="FILE", help="(default: NAME_transferability.png beside -b)")
    add("--no_plot", action="store_true", help="write no figure")
    add("--panels", action="store_true", help="a panel for every file (default: one for all)")
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
    check_outputs((args.json, args.csv, args.plot), inputs)
    if args.group and len(names) < 2:
        one = ", and all that is given is one file" if len(args.b) > 1 else ""
        raise InputError(f"--group needs two files of -b at least{one}")

    choice = Choice(args.head, tuple(args.ignore))
    pair = read_pair(args.r, args.a, arch=args.arch, subtree=args.subtree, choice=choice)
    agreement = Agreement() if args.group else None
    results = measure_files(
        pair,
        names,
        classes=args.num_classes,
        per_tensor=args.per_tensor,
        subtree=args.subtree,
        agreement=agreement,
    )
    facts = pair.facts
    del pair  # the figure needs memory, too
    if not results:
        return 2
    if len(names) > 1:
        report.print_table(results)
    if args.group:
        check_seeds(results, agreement.signs)
    warn_of_other_budgets(results)
    seeds = group(results, agreement.layers()) if agreement else None
    if seeds:
        report.print_group(seeds)

    if args.json:
        atomic_write(args.json, report.to_json(facts, results, seeds))
    if args.csv:
        atomic_write(args.csv, report.to_csv(facts, results))
    drawn = draw(args, results, seeds, inputs)
    for path in filter(None, (args.json, args.csv, args.plot)):
        say(path.resolve())
    return 0 if drawn and len(results) == len(names) else 1


def draw(
    args: argparse.Namespace, results: list[Result], seeds: Group | None, inputs: list[Path]
) -> bool:
    """Draw what the command line asks for; where that fails say why and return False.

    The numbers are safe by then. args.plot becomes the file of the figure, None without one.
    """
    try:
        if not args.plot and not args.no_plot:
            path = plot.default_path(results)
            check_outputs((args.json, args.csv, path), inputs)
            args.plot = path
        if args.plot or args.show:
            plot.draw(results, seeds, args.plot, panels=args.panels, show=args.show)
    except InputError as error:
        complain(error)
        args.plot = None
        return False
    return True


if __name__ == "__main__":
    sys.exit(run(main, needs_reader=False))
