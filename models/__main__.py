"""What step 3 would do with a file: its network, its layers, and what does not count.

    python -m models FILE

lists the layers in network order with the weights that count, then the tensors of two or more
dimensions that do not, with the reason, and the classifier. Exit code 2 and the reasons where step
3 would refuse the file.
"""

import re
import sys
from collections import Counter
from dataclasses import replace

from console import ArgumentParser, InputError, run, say

from . import checkpoint, paths
from .layers import Choice, Partition, num_classes


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(__doc__, prog="python -m models")
    parser.add_argument("file", help="checkpoint; a bare name: in ckpt/")
    parser.add_argument("--subtree", metavar="MODULE", help="path of the network, as in step 3")
    parser.add_argument("--head", metavar="MODULE", help="classifier, or none, as in step 3")
    parser.add_argument(
        "--ignore", nargs="+", action="extend", default=[], metavar="PATTERN", help="as in step 3"
    )
    args = parser.parse_args(argv)
    path = paths.locate(args.file)
    choice = Choice(args.head, tuple(args.ignore))
    theta = replace(checkpoint.read(path, subtree=args.subtree), choice=choice)
    grouped = theta.partition
    say(f"{path}: {theta.network}, {len(grouped.layers)} layers")
    for line in lines(grouped):
        say(line)
    problems = [*grouped.faults, *(f"incomplete: {line}" for line in grouped.missing)]
    for problem in problems:
        say(f"problem: {problem}")
    if problems:
        raise InputError(f"step 3 would refuse {path}, as it is listed above")


def lines(grouped: Partition) -> list[str]:
    """Return the layers, the classifier, and what is left out, as text."""
    text = []
    for number, layer in enumerate(grouped.layers, start=1):
        weights = ", ".join(
            f"{key.removeprefix(layer.name).lstrip('.')} {list(grouped.shapes[key])}".lstrip()
            for key in layer.tensors
        )
        ending = "  (classifier: T is 1, not in the mean)" if layer.is_classifier else ""
        text.append(f"{number:5}  {layer.name}  {weights}{ending}")
    # Keys that differ in numbers alone are one line.
    kinds = Counter((why, re.sub(r"\d+", "N", key)) for key, why in grouped.left_out.items())
    text += [f"left out, {why}: {key} ({n})" for (why, key), n in kinds.items()]
    if grouped.head:
        told = "the last weight of the file" if grouped.head_is_guess else "as its name tells"
        if grouped.choice.head:
            told = "as --head says"
        text.append(f"classifier: {grouped.head}, {num_classes(grouped)} outputs, {told}")
    else:
        advice = "; --head MODULE names one" if not grouped.family else ""
        text.append(f"classifier: none{advice}")
    text.append("a classifier also shows by other numbers of outputs in theta_A and theta_FB")
    return text


if __name__ == "__main__":
    sys.exit(run(main))
