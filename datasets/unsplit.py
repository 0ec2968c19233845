"""Caltech-101 and Flowers, which have no official split.

Caltech-101 draws 30 training images a class; of Flowers a fifth of every class validates
(`folder.split`), as of Land-Use and POCUS, which `folder.read` reads.
"""

import os
import re
from pathlib import Path

from console import InputError

from . import folder
from .folder import Splits, class_images, match, permuted
from .listing import Walk

CALTECH = "101_ObjectCategories"
CALTECH_TOPS = (CALTECH, f"caltech101/{CALTECH}", f"caltech-101/{CALTECH}", "")
# As the owner packs it: an archive in an archive.
CALTECH_ARCHIVES = (f"{CALTECH}.tar.gz", f"caltech-101/{CALTECH}.tar.gz", "caltech-101.zip")
CALTECH_TRAIN = 30

# The archive gives numbers alone; the names, in their order, are on the owner's page.
FLOWERS = (
    "daffodil, snowdrop, lily valley, bluebell, crocus, iris, tigerlily, tulip, fritillary, "
    "sunflower, daisy, colts' foot, dandelion, cowslip, buttercup, windflower, pansy"
).split(", ")
FLOWERS_PER_CLASS = 80
FLOWER = re.compile(r"image_\d+\.jpg", re.IGNORECASE)


def is_caltech(top: Path) -> bool:
    """Whether this is the folder of the classes of Caltech-101, under its own name or another."""
    own_name = top.is_dir() and os.path.basename(os.path.abspath(top)) == CALTECH
    # Many remove the background class.
    return own_name or any((top / name).is_dir() for name in ("BACKGROUND_Google", "accordion"))


def read_caltech(top: Path) -> Splits:
    """Read Caltech-101: of every class 30 images drawn with seed 1 train, the rest validate.

    Of a class with 30 images or fewer all but one train, so that every class is validated; only a
    class of a single image is not, with a warning.
    """
    train, val = {}, {}
    walk = Walk(known="tmp")  # the owner left such a file
    for name, paths in class_images(top, walk).items():
        cut = max(1, min(CALTECH_TRAIN, len(paths) - 1))
        drawn = permuted(paths)
        train[name], val[name] = sorted(drawn[:cut]), sorted(drawn[cut:])
    walk.report()
    return match("the training part", train, f"the validation part of {top}", val)


def has_flowers(top: Path) -> bool:
    """Whether the numbered images or class folders lie in the folder."""
    return bool(numbered_flowers(top)) or folder.has_classes(top)


def read_flowers(top: Path) -> Splits:
    """Read the 17 flowers: class folders, or image_0001.jpg to image_1360.jpg, 80 a class.

    Raises InputError unless the numbered images are exactly these.
    """
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
    images: dict[str, list[str]] = {name: [] for name in FLOWERS}
    for number, path in enumerate(paths):
        images[FLOWERS[number // FLOWERS_PER_CLASS]].append(path)
    return folder.split(images)


def numbered_flowers(top: Path) -> dict[str, str]:
    """Name in lower case -> name, of the numbered images that lie in the folder itself."""
    if not top.is_dir():
        return {}
    return {name.lower(): name for name in os.listdir(top) if FLOWER.fullmatch(name)}
