"""A start without features: theta_A with the entries of every counted weight permuted.

    python -m findings shuffle -a A.pth -o A_shuffled.pth --seed 0

The shuffled start has the norms and the distribution of theta_A's weights in every layer, and none
of their structure: the null of Raghu et al., "Transfusion" (arXiv 1902.07208). Fine-tuned like
theta_A (finetune.py -a A_shuffled.pth) it gives the T, the rotation and the agreement of seeds that
the scale of the weights alone accounts for. Normalisation, biases and all that does not count stay.
"""

from pathlib import Path

import torch

from console import ArgumentParser, InputError, integer, say
from models import checkpoint, paths
from models.checkpoint import Checkpoint
from models.pretrained import check_finite


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings shuffle")
    add = parser.add_argument
    add("-a", required=True, help="file of theta_A; a bare name: in ckpt/")
    add("-o", required=True, metavar="FILE", help="file to write; a bare name: in ckpt/")
    add("--seed", type=integer(0), default=0, help="of the permutations")
    add("--overwrite", action="store_true", help="replace the file of -o (default: off)")
    args = parser.parse_args(argv)
    theta_a, path = checkpoint.read(paths.locate(args.a)), paths.output_path(args.o)
    if path.resolve() == theta_a.path.resolve():
        raise InputError(f"-o would replace {theta_a.path}, which is given as -a")
    if path.exists() and not args.overwrite:
        raise InputError(f"{path} exists; give another name, or add --overwrite")
    check_finite(theta_a)
    checkpoint.write(path, shuffled(theta_a, args.seed))
    say(Path(path).resolve())


def shuffled(theta: Checkpoint, seed: int) -> dict[str, torch.Tensor]:
    """The state dict with the entries of every counted weight permuted, by `seed` and its order.

    The classifier is not counted: fine-tuning replaces it.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = dict(theta.tensors)
    for key in theta.partition.counted:
        entries = tensors[key].flatten()
        order = torch.randperm(len(entries), generator=generator)
        tensors[key] = entries[order].view(tensors[key].shape)
    return tensors
