"""Image data sets: `load` finds the files and gives the two splits and the class names.

    train, val, classes = load("CIFAR-10", "/data/cifar")

To add a data set, write a function that turns its folder into `folder.Found` and add a row below.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safe_io import InputError

from . import downstream, folder, imagenet

if TYPE_CHECKING:
    from .images import Images


class Source(NamedTuple):
    """A row of DATASETS.

    read: reads the data folder; None when it holds nothing of what is expected there.
    expected: what the data folder may hold, in words. image_size: pixels a side.
    """

    read: Callable[[Path], folder.Found | None]
    expected: str
    image_size: int = 224


DATASETS = {
    "ImageNet": Source(imagenet.read, imagenet.EXPECTED),
    "CIFAR-10": Source(
        partial(downstream.read_cifar, "CIFAR10"),
        "cifar-10-batches-py, cifar-10-python.tar.gz, or train/CLASS/* and test/CLASS/*",
        image_size=32,
    ),
    "CIFAR-100": Source(
        partial(downstream.read_cifar, "CIFAR100"),
        "cifar-100-python, cifar-100-python.tar.gz, or train/CLASS/* and test/CLASS/*",
        image_size=32,
    ),
    "Folder": Source(folder.read, "train/CLASS/* and val/CLASS/* (or test), or CLASS/* alone"),
}


def load(
    name: str, data_dir: str | Path, *, image_size: int | None = None
) -> "tuple[Images, Images, list[str]]":
    """Return (train, val, class names) of the data set `name` found in `data_dir`.

    name: a key of DATASETS; case, blanks and hyphens do not matter.
    image_size: pixels a side; None: the data set's own, 32 for CIFAR and 224 otherwise.

    Items of both splits are (image uint8 [3, image_size, image_size], label in 0 ... classes - 1);
    augmentation is the training loader's. Raises InputError for an unknown name, and for a folder
    that is not as the data set's should be.
    """
    from .images import as_dataset

    known = {squeeze(key): key for key in DATASETS}
    if squeeze(name) not in known:
        raise InputError(f"unknown data set '{name}'; known: {', '.join(DATASETS)}")
    name = known[squeeze(name)]
    source, root = DATASETS[name], Path(data_dir)
    found = source.read(root) if root.is_dir() else None
    if found is None:
        state = "" if root.is_dir() else " (not a folder)" if root.exists() else " (does not exist)"
        raise InputError(f"no {name} in {root}{state}; expected there: {source.expected}")
    size = image_size or source.image_size
    train, val = (as_dataset(part, image_size=size) for part in (found.train, found.val))
    return train, val, found.classes


def squeeze(name: str) -> str:
    """The name without case, blanks and hyphens."""
    return "".join(name.split()).replace("-", "").casefold()
