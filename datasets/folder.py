"""Class folders: one sub-folder per class, its images anywhere below it.

Classes are the sub-folders in sorted order, labels their positions. Hidden files and folders
(`._x.jpg` of macOS and `.ipynb_checkpoints` among them) are ignored, extensions count in upper and
lower case, symbolic links are followed. The training folders define the labels of both splits.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch

from console import InputError, warn

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class Samples(NamedTuple):
    """One split: paths, or pixels (uint8 [N, H, W, 3]), and their labels."""

    images: Sequence[str] | np.ndarray
    labels: Sequence[int]


class Splits(NamedTuple):
    """What a reader returns: the class names and the two splits, labels 0 ... classes - 1."""

    classes: list[str]
    train: Samples
    val: Samples


def read(root: Path) -> Splits:
    """Read `train/CLASS` with `val/CLASS` or `test/CLASS`, or else `CLASS` alone, which is split.

    Raises InputError for anything else.
    """
    train = root / "train"
    if train.is_file():
        raise InputError(f"{train} is a file; expected a folder with class folders there")
    if train.is_dir():
        for val in (root / "val", root / "test"):
            if val.is_dir():
                return read_pair(train, val)
        # A folder "train" of images may be a class: locomotives.
        if sub_folders(train):
            raise InputError(f"{root} has train, but neither val nor test: expected val/CLASS/*")
    images = class_images(root)
    # Whole data sets, one folder each, would otherwise be taken for the classes.
    for name in images:
        for other in ("val", "test"):
            if (root / name / "train").is_dir() and (root / name / other).is_dir():
                raise InputError(
                    f"{root / name} is no class: it holds train and {other}; give a folder with "
                    "class folders, or with train and val (or test) of class folders"
                )
    return split(images)


def has_classes(folder: Path) -> bool:
    """Whether the folder has images in class folders, or a folder "train".

    Cheap: of every class folder only one image is looked for, and none in deeper folders.
    """
    return folder.is_dir() and (
        (folder / "train").is_dir() or any(has_image(folder / name) for name in sub_folders(folder))
    )


def has_image(folder: Path) -> bool:
    """Whether an image lies in the folder itself."""
    try:
        with os.scandir(folder) as entries:
            return any(is_image(entry.name) for entry in entries)
    except OSError:
        return False


def read_pair(train: Path, val: Path) -> Splits:
    """Read two folders of class folders."""
    return match(train, class_images(train), val, class_images(val, may_be_empty=True))


def match(
    train: Path | str,
    train_images: dict[str, list[str]],
    val: Path | str,
    val_images: dict[str, list[str]],
) -> Splits:
    """Label two splits, each class name -> paths, by the classes of the training split.

    train, val: their origins, for messages. A class without training images and one that only `val`
    has are InputErrors, one that only `train` has is a warning.
    """
    classes = list(train_images)
    empty = [name for name in classes if not train_images[name]]
    if empty:
        raise InputError(f"{train} has no images of {listing(empty)}; every class needs some")
    extra = [name for name in val_images if name not in train_images]
    if extra:
        raise InputError(
            f"{val} has {listing(extra)}, which {train} lacks; both need the same class folders"
        )
    lacking = [name for name in classes if not val_images.get(name)]
    if lacking:
        warn(f"{val} has no images of {listing(lacking)}; accuracy is over the other classes")
    return Splits(classes, label(classes, train_images), label(classes, val_images))


def split(images: dict[str, list[str]]) -> Splits:
    """Split class name -> paths where no split is official: floor(n / 5) of n images validate.

    Per class, sorted paths are permuted by a generator of seed 1, and the first ones validate.
    """
    train, val = {}, {}
    for name, paths in images.items():
        drawn = permuted(paths)
        cut = len(paths) // 5
        val[name], train[name] = sorted(drawn[:cut]), sorted(drawn[cut:])
    if not any(val.values()):
        example = os.path.dirname(next(iter(images.values()))[0])
        raise InputError(f"too few images to split: no class has five (such as {example})")
    return match("the training part", train, "the validation part, a fifth of each class,", val)


def permuted(names: list[str]) -> list[str]:
    """The names in the random order of seed 1, from which splits are drawn."""
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(1)).tolist()
    return [names[i] for i in order]


def label(classes: list[str], images: dict[str, list[str]]) -> Samples:
    """All paths in the order of the classes, labelled."""
    paths = [path for name in classes for path in images.get(name, ())]
    labels = [i for i, name in enumerate(classes) for _ in images.get(name, ())]
    return Samples(paths, labels)


def class_images(root: Path, *, may_be_empty: bool = False) -> dict[str, list[str]]:
    """Class name -> its image paths, both sorted.

    Raises InputError for fewer than two classes, for no images, and for a class without images.
    may_be_empty: of a validation split, where empty classes are left out and one class is enough.
    """
    folders = sub_folders(root)
    if not folders:
        loose = sum(is_image(name) for name in os.listdir(root))
        if loose:
            raise InputError(
                f"{root} holds {loose} images but no class folders; move every image into "
                f"{root / 'CLASS'}, named as the training folders are (for ImageNet's validation "
                "images the script valprep.sh of soumith/imagenetloader.torch does it)"
            )
        raise InputError(f"no images in {root}: expected class folders with images, CLASS/*.jpg")
    images = {name: images_below(root / name) for name in folders}
    if not any(images.values()):
        raise InputError(
            f"no images in {root}: its {len(folders)} folders hold no file that ends in "
            f"{' '.join(EXTENSIONS)}"
        )
    if may_be_empty:
        return {name: paths for name, paths in images.items() if paths}
    empty = [name for name, paths in images.items() if not paths]
    if empty:
        raise InputError(f"{root} has {listing(empty)} without images; add some or remove it")
    if len(images) == 1:
        raise InputError(f"{root} has only one class, {folders[0]}; at least two are needed")
    return images


def sub_folders(root: Path) -> list[str]:
    """Sorted names of the visible folders in `root`, without links to `root` or above."""
    above = ancestors(root)
    try:
        entries = list(os.scandir(root))
    except OSError as error:
        cannot_list(error)
    return sorted(
        entry.name
        for entry in entries
        if not entry.name.startswith(".")
        and entry.is_dir()
        and not (entry.is_symlink() and os.path.realpath(entry.path) in above)
    )


def images_below(folder: Path) -> list[str]:
    """Sorted paths of all visible images in `folder` and below; every folder is read once."""
    paths = []
    # A link to a folder above would bring in the images of other classes.
    seen = ancestors(folder.parent)
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=cannot_list):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [os.path.join(parent, name) for name in files if is_image(name)]
    return sorted(paths)


def is_image(name: str) -> bool:
    """Whether the name is that of a visible image file."""
    return not name.startswith(".") and name.lower().endswith(EXTENSIONS)


def ancestors(folder: Path) -> set[str]:
    """Real paths of the folder and of all folders above it."""
    real = Path(os.path.realpath(folder))
    return {str(path) for path in (real, *real.parents)}


def cannot_list(error: OSError) -> NoReturn:
    """Raise InputError for a folder that cannot be listed; os.walk would skip it silently."""
    raise InputError(f"cannot read the folder {error.filename}: {error.strerror}") from error


def listing(names: list[str]) -> str:
    """`class a`, or `3 classes (a, b, c)`, with at most five names."""
    if len(names) == 1:
        return f"class {names[0]}"
    return f"{len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
