"""The parameters that step 3 compares: where they come from, and what is wrong with them."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

import report
from models import ARCHS, build, checkpoint
from models.checkpoint import Checkpoint
from models.layers import Layer, check_same_network, identify, num_classes, partition
from safe_io import InputError, warn

SHIPPED = checkpoint.CKPT_DIR / "shipped"
# What step 3 measures when it is told nothing: theta_r, theta_A and the files of theta_FB.
SHIPPED_R = SHIPPED / "random_init_model.pth"
SHIPPED_A = SHIPPED / "tiny_imagenet_model.pth"
SHIPPED_B = (SHIPPED / "cifar10_model.pth", SHIPPED / "cifar10_500_model.pth")


class Pair(NamedTuple):
    """theta_r and theta_A, against which every theta_FB is measured."""

    r: Checkpoint
    a: Checkpoint
    arch: str
    r_is_substitute: bool

    @property
    def facts(self) -> dict[str, Any]:
        """What the JSON file says of it."""
        return {
            "arch": self.arch,
            "r": str(self.r.path),
            "a": str(self.a.path),
            "r_is_substitute": self.r_is_substitute,
        }


def check_shipped() -> None:
    """Raise InputError for a shipped file that is missing or has another SHA-256 than listed."""
    sums = SHIPPED / "SHA256SUMS"
    if not sums.is_file():
        raise InputError(f"{sums} is missing; restore it: git checkout -- ckpt/shipped")
    for expected, name in map(str.split, sums.read_text(encoding="utf-8").splitlines()):
        path = SHIPPED / name
        if not path.is_file() or checkpoint.sha256(path) != expected:
            state = "is damaged or another file (SHA-256)" if path.is_file() else "is missing"
            raise InputError(f"{path} {state}; restore it: git checkout -- ckpt/shipped/{name}")


def read_pair(r_name: str, a_name: str, *, arch: str | None) -> Pair:
    """Read theta_r and theta_A, and tell their architecture unless it is given.

    r_name: a file, or random:SEED. Raises InputError when they are of different networks.
    """
    a = checkpoint.read(checkpoint.locate(a_name))
    grouped = partition(a.shapes)
    arch = arch or identify(a.shapes)
    if not grouped.family:
        warn(
            f"{a.path} is of no known family: the grouping is generic, each weight a layer of its "
            f"own, and the last one ({grouped.head}) is taken for the classifier"
        )
    is_substitute = r_name.startswith("random:")
    if is_substitute:
        r = substitute(r_name, arch, a)
    else:
        r = checkpoint.read(checkpoint.locate(r_name))
        report.warn_of_other_parent(a.path, r.path)
    # Said once, and not for every file of theta_FB.
    check_same_network(a.shapes, r.shapes, name_a=str(a.path), name_other=str(r.path))
    return Pair(r, a, arch, is_substitute)


def substitute(name: str, arch: str, a: Checkpoint) -> Checkpoint:
    """The standard random initialisation of `arch`, for an A whose own theta_r is unknown.

    name: random:SEED.
    """
    seed = name.removeprefix("random:")
    if not re.fullmatch("[0-9]{1,18}", seed):
        raise InputError(f"-r {name}: the seed must be a whole number (a file: ./{name})")
    if arch not in ARCHS:
        raise InputError(f"{a.path} is {arch}; -r {name} needs its name, add --arch")
    torch.manual_seed(int(seed))
    theta_r = build(arch, num_classes(a.shapes) or 1000).state_dict()
    return Checkpoint(Path(name), theta_r, container="")


def find_not_finite(checkpoints: tuple[Checkpoint, ...], layer: Layer) -> str:
    """Say which file and tensor holds NaN or infinity."""
    for file in checkpoints:
        for key in layer.tensors:
            if not torch.isfinite(file.tensors[key]).all():
                return f"{file.path}: {key} holds NaN or infinity; the training has diverged"
    return f"the values of {layer.name} are too large to compare"
