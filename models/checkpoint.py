"""Checkpoint files: read without running any code in them, written whole or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from console import InputError
from safe_io import atomic_path, sha256

from .containers import (
    names,
    open_container,
    take_network,
    take_subtree,
    without_wrappers,
)
from .dialects import align, name_of, to_today
from .formats import DISTRIBUTED, State, load, state_of
from .layers import NO_CHOICE, Choice, Partition, Shapes, partition


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The parameters of a network and where they came from.

    tensors: key -> tensor on the CPU, floating-point or not, in file order. The keys are those of
    the network in the file.
    container: top-level key that held it, "" for a plain state dict.
    files: each file that was read, as it was then.
    keeps_order: whether the tensors come in the order of the network's modules.
    choice: of the command line about the layers.
    """

    path: Path
    tensors: dict[str, Tensor]
    container: str = ""
    files: dict[Path, State] = field(default_factory=dict)
    keeps_order: bool = True
    choice: Choice = NO_CHOICE

    @property
    def shapes(self) -> Shapes:
        """Key -> shape of the tensors that can be compared."""
        return shapes_of(self.tensors)

    @cached_property
    def partition(self) -> Partition:
        """The layers, from keys, shapes and types."""
        types = {k: type_of(v) for k, v in self.tensors.items() if not is_plain(v)}
        return partition(self.shapes, types, self.choice, in_order=self.keeps_order)

    @cached_property
    def network(self) -> str:
        """Name of the network (one of ARCHS), or a description of one that the keys do not tell."""
        return name_of(self.shapes)

    def like(self, other: "Checkpoint") -> "Checkpoint":
        """Return these parameters under the names that `other` has for them."""
        tensors = align(self.tensors, other.tensors)
        return self if list(tensors) == list(self.tensors) else replace(self, tensors=tensors)

    def check_unchanged(self) -> None:
        """Raise InputError where a file is not the one that was read any more."""
        for path, state in self.files.items():
            if state_of(path) != state:
                raise InputError(
                    f"{path} was written or replaced while it was read; run the command again"
                )


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Return key -> shape of the tensors that can be compared."""
    return {key: tuple(x.shape) for key, x in tensors.items() if is_plain(x)}


def not_finite(path: Path, key: str) -> str:
    """The error of a tensor that holds values that are not finite."""
    return f"{path}: {key} holds NaN or infinity; the training diverged, or the file is damaged"


def is_plain(x: Tensor) -> bool:
    """Whether `x` holds numbers of 16 bits or more, and neither is sparse nor nested."""
    # Shorter types are codes, whose scale is stored elsewhere.
    return (
        x.is_floating_point()
        and x.element_size() > 1
        and x.layout == torch.strided
        and not x.is_nested
    )


def type_of(x: Tensor) -> str:
    """Return the type of a tensor that is not plain."""
    if x.is_nested:
        return "nested"
    return str(x.dtype if x.layout == torch.strided else x.layout).removeprefix("torch.")


def read(path: Path, *, subtree: str | None = None, needed: bool = True) -> Checkpoint:
    """Read the parameters of the network in a file without running any code in it.

    Tensors of a zip-format file stay memory-mapped. subtree, needed: as for `of_content`. Raises
    InputError, naming the file, for anything that is not a state dict.
    """
    content, files, keeps_order = load(path)
    theta = of_content(content, path, subtree=subtree, needed=needed)
    return replace(theta, files=files, keeps_order=keeps_order)


def of_content(
    content: Any, path: Path, *, subtree: str | None = None, needed: bool = True
) -> Checkpoint:
    """Return the parameters of the network in the content of a file.

    Containers such as {"state_dict": ...} are opened, and the words of wrappers such as "module"
    removed from the keys. subtree: path of the module that is the network; None: the one that is
    known. needed: whether a file without that module is an error. Raises InputError naming `path`
    for anything that is not a state dict, and where there are several networks to choose from.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not a state dict")
    content, container, rest = open_container(content, path, (subtree or "").strip("."))
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensors; its top-level keys are: {names(content)}")
    if any(type(v).__name__ in ("DTensor", "ShardedTensor") for v in tensors.values()):
        raise InputError(f"{path} holds {DISTRIBUTED}")
    if any(v.is_meta for v in tensors.values()):
        raise InputError(f"{path} holds the shapes of tensors without their values")
    tensors = without_wrappers(tensors, path)
    chosen = take_subtree(tensors, rest) if rest else {}
    if rest and needed and not chosen:
        modules = dict.fromkeys(key.partition(".")[0] for key in tensors)
        raise InputError(f"{path} holds no {subtree}; --subtree can be: {names(modules)}")
    if not chosen:
        chosen = take_network(tensors, shapes_of(tensors), path)
    return Checkpoint(path, to_today(chosen), container)


def of_mapping(theta: Checkpoint | Mapping[str, Any], name: str) -> Checkpoint:
    """Return parameters in memory as if they had been read from a file of that name."""
    return theta if isinstance(theta, Checkpoint) else of_content(theta, Path(name))


def holds(path: Path, state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a file holds exactly these tensors under these keys; False for an unreadable one."""
    try:
        content, _, _ = load(path)
    except InputError:
        return False
    return (
        isinstance(content, Mapping)
        and content.keys() == state_dict.keys()
        and all(is_same(content[key], value.cpu()) for key, value in state_dict.items())
    )


def is_same(x: Any, y: Tensor) -> bool:
    """Whether `x` is a tensor of the same type, shape and values as `y`."""
    return isinstance(x, Tensor) and x.dtype == y.dtype and torch.equal(x, y)


def write(path: Path, state_dict: Mapping[str, Tensor]) -> str:
    """Write a plain state dict (CPU, contiguous), whole or not at all; return its SHA-256.

    state_dict: key -> tensor of any shape, type and device. Raises InputError if writing fails, as
    on a full disk; an older file of that name is then untouched.
    """
    plain = {key: value.detach().cpu().contiguous() for key, value in state_dict.items()}
    with atomic_path(path) as temporary:
        save(temporary, plain)
        return sha256(temporary)


def save(path: Path, content: Any) -> None:
    """Save as torch.save does, with bytes that depend on the content alone.

    Raises OSError on a full disk.
    """
    # Given a path, torch would write the file's name into the archive.
    with open(path, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch reports a failed write as bytes that are missing.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
