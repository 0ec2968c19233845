"""Image data sets: `load` finds the files and gives the two splits and the class names.

    train, val, classes = load("CIFAR-10", "/data/cifar")

To add a data set, write a function that turns its folder into `folder.Found` and add a row below.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from console import InputError, warn

from . import cifar, folder, imagenet, indexed, unsplit
from .absent import elsewhere, unpacking
from .download import fetch

if TYPE_CHECKING:
    from .images import Images


class Source(NamedTuple):
    """A row of DATASETS.

    read: reads the data folder; None when it holds nothing of what is expected there.
    expected: what the data folder may hold, in words. origin: which archive to get, and from where.
    published: numbers of classes, training images and validation images in the paper.
    image_size: pixels a side. download: puts the data into the folder, where torchvision can.
    locate: where in a folder the data lie, None when `read` would find none there; cheap.
    archives: files that hold the data and are to be unpacked, the innermost first.
    """

    read: Callable[[Path], folder.Found | None]
    expected: str
    origin: str = ""
    published: tuple[int, int, int] | None = None
    image_size: int = 224
    download: Callable[[Path], None] | None = None
    locate: Callable[[Path], Path | None] = folder.locate
    archives: tuple[str, ...] = ()


def cifar_source(kind: str, base: str, archive: str, published: tuple[int, int, int]) -> Source:
    """The row of CIFAR-10 or CIFAR-100; kind: torchvision's name of it."""
    return Source(
        partial(cifar.read, kind),
        f"{base}, {archive}, or train/CLASS/* and test/CLASS/*",
        origin=f"{archive} (https://www.cs.toronto.edu/~kriz/cifar.html)",
        published=published,
        image_size=32,
        download=partial(cifar.download, kind),
        locate=partial(cifar.locate, kind),
    )


def domain_source(domain: str, published: tuple[int, int, int]) -> Source:
    """The row of a domain of DomainNet."""
    lists = f"{domain}_train.txt and {domain}_test.txt"
    return Source(
        partial(indexed.read_domain, domain),
        f"{domain}/CLASS/* with {lists}",
        origin=f"{domain}.zip, {lists} (http://ai.bu.edu/M3SDA/)",
        published=published,
        locate=partial(indexed.locate_domain, domain),
        archives=(f"{domain}.zip",),
    )


DATASETS = {
    "ImageNet": Source(
        imagenet.read,
        imagenet.EXPECTED,
        origin="ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (https://image-net.org)",
        locate=imagenet.locate,
        archives=(f"{imagenet.TINY}.zip",),
    ),
    "CIFAR-10": cifar_source(
        "CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz", (10, 50000, 10000)
    ),
    "CIFAR-100": cifar_source(
        "CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz", (100, 50000, 10000)
    ),
    "Caltech-101": Source(
        unsplit.read_caltech,
        "101_ObjectCategories/CLASS/*",
        origin="caltech-101.zip (https://data.caltech.edu/records/mzrjq-6wc02)",
        published=(102, 3060, 6084),
        download=unsplit.download_caltech,
        locate=unsplit.locate_caltech,
        archives=(
            "101_ObjectCategories.tar.gz",
            "caltech-101/101_ObjectCategories.tar.gz",
            "caltech-101.zip",
        ),
    ),
    "CUB-200": Source(
        indexed.read_cub,
        "CUB_200_2011 with images, images.txt, image_class_labels.txt and train_test_split.txt",
        origin="CUB_200_2011.tgz (https://www.vision.caltech.edu/datasets/cub_200_2011/)",
        published=(200, 5994, 5794),
        locate=indexed.locate_cub,
        archives=("CUB_200_2011.tgz",),
    ),
    "Aircraft": Source(
        indexed.read_aircraft,
        "fgvc-aircraft-2013b/data with images, variants.txt, images_variant_trainval.txt and "
        "images_variant_test.txt",
        origin="fgvc-aircraft-2013b.tar.gz (https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/)",
        published=(100, 6667, 3333),
        download=indexed.download_aircraft,
        locate=indexed.locate_aircraft,
        archives=("fgvc-aircraft-2013b.tar.gz",),
    ),
    "Flowers": Source(
        unsplit.read_flowers,
        "jpg/image_0001.jpg to image_1360.jpg, or CLASS/*",
        origin="17flowers.tgz (https://www.robots.ox.ac.uk/~vgg/data/flowers/17/)",
        published=(17, 1088, 272),
        locate=unsplit.locate_flowers,
        archives=("17flowers.tgz",),
    ),
    "Land-Use": Source(
        unsplit.read_land_use,
        "UCMerced_LandUse/Images/CLASS/*",
        origin="UCMerced_LandUse.zip (http://weegee.vision.ucmerced.edu/datasets/landuse.html)",
        published=(21, 1680, 420),
        locate=unsplit.locate_land_use,
        archives=("UCMerced_LandUse.zip",),
    ),
    "POCUS": Source(
        unsplit.read_pocus,
        "CLASS/*, or train/CLASS/* and val/CLASS/* (or test)",
        origin="the images (https://github.com/jannisborn/covid19_ultrasound)",
        published=(3, 1692, 424),
        locate=unsplit.locate_pocus,
    ),
    "DTD": Source(
        indexed.read_dtd,
        "dtd with images/CLASS/*, labels/train1.txt and labels/test1.txt",
        origin="dtd-r1.0.1.tar.gz (https://www.robots.ox.ac.uk/~vgg/data/dtd/)",
        published=(47, 1880, 1880),
        download=indexed.download_dtd,
        locate=indexed.locate_dtd,
        archives=("dtd-r1.0.1.tar.gz",),
    ),
    "DomainNet-r": domain_source("real", (345, 120906, 52041)),
    "DomainNet-p": domain_source("painting", (345, 50416, 21850)),
    "DomainNet-c": domain_source("clipart", (345, 33525, 14604)),
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

    found = find(name, data_dir)
    if max_classes is not None:
        found = first_classes(found, max_classes)
    if max_samples is not None:
        found = found._replace(train=draw(found.train, max_samples, seed=seed))
    size = image_size or DATASETS[full_name(name)].image_size
    train, val = (as_dataset(part, image_size=size) for part in (found.train, found.val))
    return train, val, found.classes


def find(name: str, data_dir: str | Path) -> folder.Found:
    """The files, labels and classes of the data set `name` in `data_dir`.

    name: a key of DATASETS; case, blanks and hyphens do not matter. Raises InputError for an
    unknown name, and for a folder that is not as the data set's should be. Counts of images unlike
    the published ones are a warning.
    """
    name = full_name(name)
    source, root = DATASETS[name], Path(data_dir)
    try:
        found = source.read(root) if os.path.isdir(root) else None
        if found is None:
            raise InputError(is_not_there(name, root, download=False))
    except OSError as error:
        raise unreadable(error, root) from error
    except InputError as error:
        hint = elsewhere(root, source.locate, like=squeeze(name))
        raise InputError(f"{error}{hint}") from error
    compare_counts(name, root, found)
    return found


def download(name: str, data_dir: str | Path) -> None:
    """Get the data set `name` unless it is in `data_dir`, in whole or packed.

    Raises InputError for an unknown name, and for a download that fails or is not known.
    """
    name = full_name(name)
    source, root = DATASETS[name], Path(data_dir)
    try:
        if source.locate(root) or unpacking(root, source.archives):
            return
    except OSError as error:
        raise unreadable(error, root) from error
    if source.download is None:
        raise InputError(is_not_there(name, root, download=True))
    fetch(name, root, source.download, source.locate, origin=source.origin)


def unreadable(error: OSError, root: Path) -> InputError:
    """The error for a folder that cannot be listed."""
    return InputError(f"cannot read {error.filename or root}: {error.strerror or error}")


def is_not_there(name: str, root: Path, *, download: bool) -> str:
    """Say that the data set is not in `root`, and how it gets there."""
    source = DATASETS[name]
    state = " (not a folder)" if root.exists() else " (does not exist)"
    if root.is_dir():
        state = ""
    command = unpacking(root, source.archives)
    if command:
        advice = f"; unpack it: {command}"
    elif not source.origin:
        advice = ""
    elif download:
        advice = f"; it cannot be downloaded from here: get {source.origin}, unpack it in {root}"
    else:
        fetched = ", or let finetune.py --download get it" if source.download else ""
        advice = f"; get {source.origin}{fetched}"
    return f"no {name} in {root}{state}; expected there: {source.expected}{advice}"


def compare_counts(name: str, root: Path, found: folder.Found) -> None:
    """Warn if the numbers of classes and images are not the published ones."""
    counts = (len(found.classes), len(found.train.labels), len(found.val.labels))
    published = DATASETS[name].published
    if published not in (None, counts):
        ours, theirs = (
            f"{classes:,} classes, {train:,} training and {val:,} validation images"
            for classes, train, val in (counts, published)
        )
        warn(f"{name} in {root} has {ours}; published are {theirs}")


def full_name(name: str) -> str:
    """The key of DATASETS that `name` means; InputError for an unknown one."""
    known = {squeeze(key): key for key in DATASETS}
    if squeeze(name) not in known:
        raise InputError(f"unknown data set '{name}'; known: {', '.join(DATASETS)}")
    return known[squeeze(name)]


def squeeze(name: str) -> str:
    """The name without case, blanks and hyphens."""
    return "".join(name.split()).replace("-", "").casefold()
