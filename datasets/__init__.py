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
    expected: what the data folder may hold, in words. origin: which archive to get, and from where.
    published: numbers of classes, training images and validation images in the paper.
    image_size: pixels a side. download: puts the data into the folder, where torchvision can.
    """

    read: Callable[[Path], folder.Found | None]
    expected: str
    origin: str = ""
    published: tuple[int, int, int] | None = None
    image_size: int = 224
    download: Callable[[Path], None] | None = None


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
    name: str,
    data_dir: str | Path,
    *,
    image_size: int | None = None,
    max_classes: int | None = None,
    max_samples: int | None = None,
    seed: int = 0,
    download: bool = False,
) -> "tuple[Images, Images, list[str]]":
    """Return (train, val, class names) of the data set `name` found in `data_dir`.

    image_size: pixels a side; None: the data set's own, 32 for CIFAR and 224 otherwise.
    max_classes: keep the first so many classes. max_samples: draw so many training images, balanced
    over the classes, by `seed`; a smaller draw is a subset of a larger one.

    Items of both splits are (image uint8 [3, image_size, image_size], label in 0 ... classes - 1);
    augmentation is the training loader's. Raises InputError as `find` does, and for a limit that
    the data set cannot meet.
    """
    from .images import as_dataset
    from .subset import draw, first_classes

    found = find(name, data_dir, download=download)
    if max_classes is not None:
        found = first_classes(found, max_classes)
    if max_samples is not None:
        found = found._replace(train=draw(found.train, max_samples, seed=seed))
    size = image_size or DATASETS[full_name(name)].image_size
    train, val = (as_dataset(part, image_size=size) for part in (found.train, found.val))
    return train, val, found.classes


def find(name: str, data_dir: str | Path, *, download: bool = False) -> folder.Found:
    """The files, labels and classes of the data set `name` in `data_dir`.

    name: a key of DATASETS; case, blanks and hyphens do not matter. Raises InputError for an
    unknown name, and for a folder that is not as the data set's should be.
    """
    name = full_name(name)
    source, root = DATASETS[name], Path(data_dir)
    found = source.read(root) if root.is_dir() else None
    if found is None:
        state = "" if root.is_dir() else " (not a folder)" if root.exists() else " (does not exist)"
        raise InputError(f"no {name} in {root}{state}; expected there: {source.expected}")
    return found


def full_name(name: str) -> str:
    """The key of DATASETS that `name` means; InputError for an unknown one."""
    known = {squeeze(key): key for key in DATASETS}
    if squeeze(name) not in known:
        raise InputError(f"unknown data set '{name}'; known: {', '.join(DATASETS)}")
    return known[squeeze(name)]


def squeeze(name: str) -> str:
    """The name without case, blanks and hyphens."""
    return "".join(name.split()).replace("-", "").casefold()
