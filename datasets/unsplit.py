"""Data sets without an official split: Caltech-101, Flowers, Land-Use and POCUS.

Caltech-101 draws 30 training images a class; of the others one fifth of every class validates
(`folder.split`). A folder with `train` and `val` (or `test`) is taken as it is split.
"""

import os
import re
from pathlib import Path

from console import InputError

from . import folder
from .folder import Found, class_images, match, permuted

CALTECH_FOLDER = "101_ObjectCategories"
CALTECH_TOPS = (CALTECH_FOLDER, f"caltech101/{CALTECH_FOLDER}", f"caltech-101/{CALTECH_FOLDER}")
CALTECH_TRAIN = 30

LAND_USE_TOPS = ("UCMerced_LandUse/Images", "Images", "")
POCUS_TOPS = ("POCUS", "pocus", "image_dataset", "")

# The archive gives numbers alone; the names, in their order, are on the owner's page.
FLOWERS = (
    "daffodil",
    "snowdrop",
    "lily valley",
    "bluebell",
    "crocus",
    "iris",
    "tigerlily",
    "tulip",
    "fritillary",
    "sunflower",
    "daisy",
    "colts' foot",
    "dandelion",
    "cowslip",
    "buttercup",
    "windflower",
    "pansy",
)
FLOWERS_PER_CLASS = 80
FLOWERS_TOPS = ("jpg", "17flowers/jpg", "17flowers", "")
FLOWER = re.compile(r"image_\d+\.jpg", re.IGNORECASE)


def locate_caltech(root: Path) -> Path | None:
    """The folder of the classes of Caltech-101: one of CALTECH_TOPS, or `root` itself."""
    for top in CALTECH_TOPS:
        if (root / top).is_dir():
            return root / top
    # Named otherwise, or without the background class, which many remove.
    known = any((root / name).is_dir() for name in ("BACKGROUND_Google", "accordion"))
    named = os.path.basename(os.path.abspath(root)) == CALTECH_FOLDER and root.is_dir()
    return root if known or named else None


def read_caltech(root: Path) -> Found | None:
    """Read Caltech-101: of every class 30 images drawn with seed 1 train, the rest validate.

    Of a class with 30 images or fewer all but one train, so that every class is validated; only a
    class of a single image is not, with a warning.
    """
    top = locate_caltech(root)
    if top is None:
        return None
    train, val = {}, {}
    for name, paths in class_images(top).items():
        cut = max(1, min(CALTECH_TRAIN, len(paths) - 1))
        drawn = permuted(paths)
        train[name], val[name] = sorted(drawn[:cut]), sorted(drawn[cut:])
    return match("the training part", train, f"the validation part of {top}", val)


def download_caltech(root: Path) -> None:
    """Get the archive by torchvision, which unpacks it to caltech101/101_ObjectCategories."""
    from torchvision.datasets import Caltech101

    Caltech101(root, download=True)


def locate_flowers(root: Path) -> Path | None:
    """The folder of the numbered images, or of the class folders."""
    for top in FLOWERS_TOPS:
        if numbered_flowers(root / top):
            return root / top
    return folder.locate(root, FLOWERS_TOPS)


def read_flowers(root: Path) -> Found | None:
    """Read the 17 flowers: class folders, or image_0001.jpg to image_1360.jpg, 80 a class.

    Raises InputError unless the numbered images are exactly these.
    """
    top = locate_flowers(root)
    if top is None:
        return None
    present = numbered_flowers(top)
    if not present:
        return folder.read(top)
    count = len(FLOWERS) * FLOWERS_PER_CLASS
    expected = [f"image_{number:04d}.jpg" for number in range(1, count + 1)]
    others = sorted(present.keys() - set(expected))
    if others:
        raise InputError(
            f"{top} holds {present[others[0]]}, but the 17 flowers are image_0001.jpg to "
            f"{expected[-1]}, 80 of each in turn (the 102 flowers are another data set)"
        )
    missing = [name for name in expected if name not in present]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"{top} lacks {missing[0]}{more} of the {count:,} images, whose numbers give the "
            "classes; unpack 17flowers.tgz again"
        )
    paths = [os.path.join(top, present[name]) for name in expected]
    return folder.split(
        {
            name: paths[i * FLOWERS_PER_CLASS : (i + 1) * FLOWERS_PER_CLASS]
            for i, name in enumerate(FLOWERS)
        }
    )


def numbered_flowers(top: Path) -> dict[str, str]:
    """Name in lower case -> name, of the numbered images that lie in the folder itself."""
    if not top.is_dir():
        return {}
    return {name.lower(): name for name in os.listdir(top) if FLOWER.fullmatch(name)}


def locate_land_use(root: Path) -> Path | None:
    """The folder of the classes."""
    return folder.locate(root, LAND_USE_TOPS)


def read_land_use(root: Path) -> Found | None:
    """Read the land use images of UC Merced: Images/CLASS/*.tif."""
    top = locate_land_use(root)
    return None if top is None else folder.read(top)


def locate_pocus(root: Path) -> Path | None:
    """The folder of the classes."""
    return folder.locate(root, POCUS_TOPS)


def read_pocus(root: Path) -> Found | None:
    """Read the ultrasound images of POCUS: a folder per class."""
    top = locate_pocus(root)
    return None if top is None else folder.read(top)
