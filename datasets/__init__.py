"""Image data sets: `load` returns the two splits and the class names.

    train, val, classes = load("CIFAR-10", "/data/cifar")

A new data set is a new row of DATASETS. `folder.read` reads class folders; another reader takes the
folder of the data and returns `folder.Splits`: in indexed.py where text files list the images, in
unsplit.py where no split is official.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from console import InputError, say, warn

from . import cifar, folder, imagenet, indexed, unsplit
from .download import fetch
from .hints import did_you_mean, unpacking

if TYPE_CHECKING:
    from .images import Images


class Source(NamedTuple):
    """A row of DATASETS.

    read: reads the folder of the data. expected: what may be in --data_dir, in words. tops: where
    that folder may lie below --data_dir. marker: a path in it that marks it, or a function that
    recognises it. published: numbers of classes, training and validation images in the paper.
    origin: what to get, and where. archives: files to unpack, the innermost first. download:
    torchvision's class, where it can get the data. image_size: pixels a side.
    """

    read: Callable[[Path], folder.Splits]
    expected: str
    tops: tuple[str, ...] = ("",)
    marker: str | Callable[[Path], object] = folder.has_classes
    published: tuple[int, int, int] | None = None
    origin: str = ""
    archives: tuple[str, ...] = ()
    download: str = ""
    image_size: int = 224

    def locate(self, root: Path) -> Path | None:
        """The folder of the data at or below `root`; None where there is none. Cheap."""
        for top in self.tops:
            if self.is_at(root / top):
                return root / top
        # `root` may also be the folder that marks the data, such as DomainNet's "real".
        own = Path(os.path.abspath(root))
        if isinstance(self.marker, str) and own.name == self.marker.partition("/")[0]:
            return own.parent if own.is_dir() and self.is_at(own.parent) else None
        return None

    def is_at(self, top: Path) -> bool:
        """Whether `top` is the folder of the data."""
        if isinstance(self.marker, str):
            return os.path.exists(top / self.marker)
        return bool(self.marker(top))


def cifar_source(kind: str, base: str, archive: str, published: tuple[int, int, int]) -> Source:
    """The row of CIFAR-10 or CIFAR-100; kind: torchvision's class."""
    return Source(
        partial(cifar.read, kind),
        f"{base}, {archive}, or train/CLASS/* and test/CLASS/*",
        tops=(base, ""),
        marker=partial(cifar.is_cifar, kind),
        published=published,
        origin=f"{archive} (https://www.cs.toronto.edu/~kriz/cifar.html)",
        download=kind,
        image_size=32,
    )


def domain_source(domain: str, published: tuple[int, int, int]) -> Source:
    """The row of a domain of DomainNet."""
    lists = f"{domain}_train.txt and {domain}_test.txt"
    return Source(
        partial(indexed.read_domain, domain),
        f"{domain}/CLASS/* with {lists}",
        tops=("", "DomainNet", "domainnet"),
        marker=domain,
        published=published,
        origin=f"{domain}.zip, {lists} (http://ai.bu.edu/M3SDA/)",
        archives=(f"{domain}.zip",),
    )


DATASETS = {
    "ImageNet": Source(
        imagenet.read,
        imagenet.EXPECTED,
        tops=("", imagenet.TINY),
        marker=imagenet.layout,
        origin="ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (https://image-net.org)",
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
        f"{unsplit.CALTECH}/CLASS/*",
        tops=unsplit.CALTECH_TOPS,
        marker=unsplit.is_caltech,
        published=(102, 3060, 6084),
        origin="caltech-101.zip (https://data.caltech.edu/records/mzrjq-6wc02)",
        archives=unsplit.CALTECH_ARCHIVES,
        download="Caltech101",
    ),
    "CUB-200": Source(
        indexed.read_cub,
        "CUB_200_2011 with images, images.txt and train_test_split.txt",
        tops=("CUB_200_2011", ""),
        marker="images.txt",
        published=(200, 5994, 5794),
        origin="CUB_200_2011.tgz (https://www.vision.caltech.edu/datasets/cub_200_2011/)",
        archives=("CUB_200_2011.tgz",),
    ),
    "Aircraft": Source(
        indexed.read_aircraft,
        "fgvc-aircraft-2013b/data with images, variants.txt, images_variant_trainval.txt and "
        "images_variant_test.txt",
        tops=("fgvc-aircraft-2013b", ""),
        marker="data/variants.txt",
        published=(100, 6667, 3333),
        origin="fgvc-aircraft-2013b.tar.gz (https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/)",
        archives=("fgvc-aircraft-2013b.tar.gz",),
        download="FGVCAircraft",
    ),
    "Flowers": Source(
        unsplit.read_flowers,
        "jpg/image_0001.jpg to image_1360.jpg, or CLASS/*",
        tops=("jpg", "17flowers/jpg", "17flowers", ""),
        marker=unsplit.has_flowers,
        published=(17, 1088, 272),
        origin="17flowers.tgz (https://www.robots.ox.ac.uk/~vgg/data/flowers/17/)",
        archives=("17flowers.tgz",),
    ),
    "Land-Use": Source(
        folder.read,
        "UCMerced_LandUse/Images/CLASS/*",
        tops=("UCMerced_LandUse/Images", "Images", ""),
        published=(21, 1680, 420),
        origin="UCMerced_LandUse.zip (http://weegee.vision.ucmerced.edu/datasets/landuse.html)",
        archives=("UCMerced_LandUse.zip",),
    ),
    "POCUS": Source(
        folder.read,
        "splitN/CLASS/*, CLASS/*, or train/CLASS/* and val/CLASS/* (or test)",
        tops=("POCUS", "pocus", "image_dataset", "cross_validation", ""),
        published=(3, 1692, 424),
        origin="the images (https://github.com/jannisborn/covid19_ultrasound)",
    ),
    "DTD": Source(
        indexed.read_dtd,
        "dtd with images/CLASS/*, labels/train1.txt and labels/test1.txt",
        tops=("dtd", "dtd/dtd", ""),
        marker="labels",
        published=(47, 1880, 1880),
        origin="dtd-r1.0.1.tar.gz (https://www.robots.ox.ac.uk/~vgg/data/dtd/)",
        archives=("dtd-r1.0.1.tar.gz",),
        download="DTD",
    ),
    "DomainNet-r": domain_source("real", (345, 120906, 52041)),
    "DomainNet-p": domain_source("painting", (345, 50416, 21850)),
    "DomainNet-c": domain_source("clipart", (345, 33525, 14604)),
    "Folder": Source(folder.read, "train/CLASS/* and val/CLASS/* (or test), or CLASS/* alone"),
}
# They accept any folder of images, so that the folder above would match by chance.
ANY_IMAGES = (folder.has_classes, unsplit.has_flowers)


def load(
    name: str,
    data_dir: str | Path,
    *,
    image_size: int | None = None,
    max_classes: int | None = None,
    max_samples: int | None = None,
    random_labels: bool = False,
    seed: int = 0,
) -> "tuple[Images, Images, list[str]]":
    """Return (train, val, class names) of the data set `name` in `data_dir`.

    image_size: pixels a side; None: the data set's own, 32 for CIFAR and 224 otherwise.
    max_classes: number of classes to keep, from the first. max_samples: number of training images
    to draw by `seed`, balanced over the classes; a smaller draw is a subset of a larger one.
    random_labels: permute the training labels by `seed`.

    What is left out of a folder is warned of, and which of its folders are the splits is printed.

    Items of both splits are (image uint8 [3, image_size, image_size], label in 0 ... classes - 1);
    augmentation is the training loader's. Raises InputError as `find` does, and for a limit that
    the data set cannot meet.
    """
    from .images import as_dataset
    from .subset import draw, first_classes, permute_labels

    splits = find(name, data_dir)
    if splits.note:
        say(splits.note)
    if max_classes is not None:
        splits = first_classes(splits, max_classes)
    if max_samples is not None:
        splits = splits._replace(train=draw(splits.train, max_samples, seed=seed))
    if random_labels:
        splits = splits._replace(train=permute_labels(splits.train, seed=seed))
    size = image_size or DATASETS[full_name(name)].image_size
    train, val = (as_dataset(part, image_size=size) for part in (splits.train, splits.val))
    return train, val, splits.classes


def find(name: str, data_dir: str | Path) -> folder.Splits:
    """The files, labels and classes of the data set `name` in `data_dir`.

    name: a key of DATASETS; case, blanks and hyphens do not matter. Raises InputError for an
    unknown name, and for a folder without the data set or with a damaged one. Counts of images
    unlike the published ones are a warning.
    """
    name = full_name(name)
    source, root = DATASETS[name], Path(data_dir)
    try:
        top = source.locate(root)
        if top is None and name == "Folder" and os.path.isdir(root):
            top = root  # its reader says what is wrong there
        if top is None or not os.path.isdir(root):
            raise InputError(is_not_there(name, root, download=False))
        splits = source.read(top)
    except OSError as error:
        raise unreadable(error, root) from error
    except InputError as error:
        upwards = source.marker not in ANY_IMAGES
        hint = ""
        if not isinstance(error, folder.NoClasses):
            hint = did_you_mean(root, source.locate, like=plain(name), upwards=upwards)
        raise InputError(f"{error}{hint}") from error
    compare_counts(name, root, splits)
    return splits


def download(name: str, data_dir: str | Path) -> None:
    """Download the data set `name`, unless it is in `data_dir`, be it packed.

    Raises InputError for an unknown name, and for a download that fails or is not known.
    """
    name = full_name(name)
    source, root = DATASETS[name], Path(data_dir)
    try:
        if source.locate(root) or unpacking(root, source.archives):
            return
    except OSError as error:
        raise unreadable(error, root) from error
    if not source.download:
        raise InputError(is_not_there(name, root, download=True))
    fetch(name, root, source.download, origin=source.origin)
    if source.locate(root) is None:
        raise InputError(
            f"{name} has been downloaded, but is not found in {root}; if a folder there is in its "
            "way, move that away"
        )


def unreadable(error: OSError, root: Path) -> InputError:
    """The error for a folder that cannot be listed."""
    return InputError(f"cannot read {error.filename or root}: {error.strerror or error}")


def is_not_there(name: str, root: Path, *, download: bool) -> str:
    """The message that the data set is not in `root`, and how to get it there."""
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
        or_download = ", or let finetune.py --download get it" if source.download else ""
        advice = f"; get {source.origin}{or_download}"
    return f"no {name} in {root}{state}; expected there: {source.expected}{advice}"


def compare_counts(name: str, root: Path, splits: folder.Splits) -> None:
    """Warn if the numbers of classes and images are not the published ones."""
    counts = (len(splits.classes), len(splits.train.labels), len(splits.val.labels))
    published = DATASETS[name].published
    if published not in (None, counts):
        ours, theirs = (
            f"{classes:,} classes, {train:,} training and {val:,} validation images"
            for classes, train, val in (counts, published)
        )
        warn(f"{name} in {root} has {ours}; published are {theirs}")


def full_name(name: str) -> str:
    """The key of DATASETS that `name` means; InputError for an unknown one."""
    known = {plain(key): key for key in DATASETS}
    if plain(name) not in known:
        raise InputError(f"unknown data set '{name}'; known: {', '.join(DATASETS)}")
    return known[plain(name)]


def plain(name: str) -> str:
    """The name without case, blanks and hyphens."""
    return "".join(name.split()).replace("-", "").casefold()
