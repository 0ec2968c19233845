"""theta_r and theta_A, against which step 3 measures, and the files that it measures unasked."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from console import InputError, offer, warn
from models import ARCHS, TIMM, build, checkpoint, paths
from models.checkpoint import Checkpoint
from models.comparison import check_architecture, check_same_network
from models.layers import NO_CHOICE, Choice, has_unknown_depth, identify, num_classes
from safe_io import sha256

from .checks import (
    check_complete,
    check_known,
    warn_of_not_finite,
    warn_of_other_parent,
    warn_of_strangers,
)

SHIPPED = paths.CKPT_DIR / "shipped"
SHIPPED_PLOT = paths.CKPT_DIR / "shipped_transferability.png"


class Pair(NamedTuple):
    """theta_r and theta_A of one network, against which every theta_FB is measured.

    arch: its name (one of ARCHS or timm/NAME), or words where it is not known.
    r_is_substitute: theta_r was drawn here and is not what theta_A was trained from.
    """

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


def shipped_files() -> tuple[str, str, list[str]]:
    """Names of theta_r, theta_A and the files of theta_FB that step 3 measures by default.

    Raises InputError where one of them is missing or damaged.
    """
    check_shipped()
    r, a, *b = (
        str(SHIPPED / f"{name}_model.pth")
        for name in ("random_init", "tiny_imagenet", "cifar10", "cifar10_500")
    )
    return r, a, b


def check_shipped() -> None:
    """Raise InputError for a shipped file that is missing or has another SHA-256 than listed."""
    sums = SHIPPED / "SHA256SUMS"
    if not sums.is_file():
        raise InputError(f"{sums} is missing; restore it: git checkout -- ckpt/shipped")
    for expected, name in map(str.split, sums.read_text(encoding="utf-8").splitlines()):
        path = SHIPPED / name
        if not path.is_file() or sha256(path) != expected:
            state = "is damaged or another file (SHA-256)" if path.is_file() else "is missing"
            raise InputError(f"{path} {state}; restore it: git checkout -- ckpt/shipped/{name}")


def read(
    path: Path, choice: Choice, *, subtree: str | None = None, needed: bool = True
) -> Checkpoint:
    """Read a file whose layers are those of `choice`; InputError if it has unknown tensors.

    subtree, needed: as for `checkpoint.read`.
    """
    theta = replace(checkpoint.read(path, subtree=subtree, needed=needed), choice=choice)
    check_known(theta)
    return theta


def read_pair(
    r_name: str,
    a_name: str,
    *,
    arch: str | None = None,
    subtree: str | None = None,
    choice: Choice = NO_CHOICE,
) -> Pair:
    """Read theta_r and theta_A, and recognise their architecture unless it is given.

    r_name: a file, or random:SEED. subtree: path of the network in a file, which that of theta_A
    must have. Raises InputError when they are of different networks, and where the network is not
    `arch`.
    """
    a = read(paths.locate(a_name), choice, subtree=subtree)
    check_complete(a)
    is_substitute = r_name.startswith("random:")
    if arch:
        check_architecture(a, arch)
    arch = arch or a.network
    if not a.partition.family:
        head, by_name = a.partition.head, ", and the classifier ({}) is told by its name"
        last = ", and the last one ({}) is taken for the classifier"
        told = last if a.partition.head_is_guess else by_name
        warn(
            f"{a.path} is of no known family: the grouping is generic, each weight a layer of its "
            f"own{told.format(head) if head else ''}"
        )
    warn_of_strangers(a)
    warn_of_not_finite(a)
    if not a.partition.head and has_unknown_depth(a.partition):
        warn(
            f"{a.path} is {identify(a.partition)} without a classifier; no known network has this "
            "depth, so it may be a part of a file"
        )
    if is_substitute:
        return Pair(substitute(r_name, arch, a), a, arch, is_substitute)
    r = read_r(paths.locate(r_name), a, subtree=subtree)
    warn_of_not_finite(r)
    return Pair(r, a, arch, is_substitute)


def read_r(path: Path, a: Checkpoint, *, subtree: str | None = None) -> Checkpoint:
    """Read theta_r, under the names that `a` has for its tensors.

    Warns where the record of `a` says that it was trained from another file. Raises InputError
    where theta_r is of another network than `a`.
    """
    r = read(path, a.choice, subtree=subtree, needed=False).like(a)
    warn_of_other_parent(a.path, path)
    # Said here once, and not for every file of theta_FB.
    check_same_network(a.partition, r.partition, name_a=str(a.path), name_other=str(path))
    return r


def substitute(name: str, arch: str, a: Checkpoint) -> Checkpoint:
    """The standard random initialisation of `arch`, for an A whose own theta_r is unknown.

    name: random:SEED. Raises InputError for another seed than a whole number, and where `arch` has
    no standard initialisation or is not the network of `a`.
    """
    seed = name.removeprefix("random:")
    if not re.fullmatch("[0-9]{1,18}", seed):
        raise InputError(f"-r {name}: the seed must be a whole number (a file: ./{name})")
    if arch not in ARCHS and not arch.startswith(TIMM):
        raise InputError(f"{a.path} is {arch}; -r {name} needs its name{offer(', add --arch')}")
    torch.manual_seed(int(seed))
    theta_r = build(arch, num_classes(a.partition) or 1000).state_dict()
    r = Checkpoint(Path(name), theta_r, choice=a.choice).like(a)
    if r.tensors.keys().isdisjoint(theta_r):
        warn(
            f"{name} is drawn as torchvision initialises {arch}, but the keys of {a.path} are of "
            "another library, whose initialisation may differ"
            + offer("; for timm's add --arch timm/NAME")
        )
    check_same_network(a.partition, r.partition, name_a=str(a.path), name_other=name)
    return r
