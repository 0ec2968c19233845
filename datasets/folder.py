"""Class folders: one sub-folder per class, its images anywhere below it.

Classes are the sub-folders in sorted order, labels their positions. Folders named as splits are
(train, val and test, in any case of letters) are the splits and never classes; the training folders
define the labels of both splits. listing.py has what is ignored, and what is said of it.
"""

import os
import re
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from console import InputError, warn

from .listing import EXTENSIONS, Walk, entries_of, is_image, no_images, sub_folders

# Names of splits, in small letters and in the order of preference.
TRAIN = ("train", "training")
VAL = ("val", "valid", "validation")
TEST = ("test", "testing")
# Parts of a cross-validation, as of POCUS.
FOLD = re.compile(r"(?:split|fold)[ _-]?(\d+)", re.IGNORECASE)
# Names that say split in other words: seg_train, test_set, train2017, dev.
LIKE_TRAIN, LIKE_VAL = (
    re.compile(rf"(?:.*[^a-z])?(?:{words})(?:[ _-]?set)?(?:[^a-z].*)?", re.IGNORECASE)
    for words in (
        "train|trn|training|tr",
        "val|valid|validation|validate|dev|eval|evaluation|test|testing|tst|te|holdout",
    )
)
# Splits are no more than so many folders; of more, a name that resembles one may be a class's.
MOST_SPLITS = 4
# A frame of a video, without its ending: VIDEO_frameN or VIDEO.mp4_frameN.
FRAME = re.compile(r"(.+)_frame\d+", re.IGNORECASE | re.DOTALL)


class NoClasses(InputError):
    """Folders that are splits and no classes; one beside or inside them is no better."""


class Samples(NamedTuple):
    """One split: paths, or pixels (uint8 [N, H, W, 3]), and their labels."""

    images: Sequence[str] | np.ndarray
    labels: Sequence[int]


class Splits(NamedTuple):
    """What a reader returns: the class names and the two splits, labels 0 ... classes - 1.

    note: which folders were taken for the splits, where their names told, for the user.
    """

    classes: list[str]
    train: Samples
    val: Samples
    note: str = ""


def read(root: Path) -> Splits:
    """Read the splits in `root`, or the folds, or else `CLASS` alone, which is split.

    Splits are train (or training) with val, valid or validation, or else test or testing; which
    one validates is said. Raises InputError for anything else.
    """
    if (root / "train").is_file():
        raise InputError(f"{root / 'train'} is a file; expected a folder with class folders there")
    names = sub_folders(root)
    train, val = named(names, *TRAIN), named(names, *VAL, *TEST)
    if train and val:
        note = named_splits(root, names, train[:1], val[0])
        return read_pair(root / train[0], root / val[0])._replace(note=note)
    folds = [name for name in names if FOLD.fullmatch(name) and sub_folders(root / name)]
    if folds:
        return read_folds(root, names, folds)
    refuse_splits(root, names, train, val)
    walk = Walk()
    images = class_images(root, walk)
    # Whole data sets, one folder each, would otherwise be taken for the classes.
    for name in names:
        refuse_data_set(root / name)
    walk.report()
    return split(images)


def named(names: list[str], *words: str) -> list[str]:
    """Those of the names that are one of `words` in any case of letters, in the words' order."""
    # In reverse, since small letters come after capitals: val before Val.
    return [name for word in words for name in sorted(names, reverse=True) if name.lower() == word]


def named_splits(
    root: Path, names: list[str], train: list[str], val: str, *, usual: str = "val"
) -> str:
    """Which of the folders are the splits, and which are passed over, in words.

    Nothing is said of `train` with `usual`, where they are alone.
    """
    passed = [name for name in names if name not in (*train, val)]
    if not passed and (train, val) == (["train"], usual):
        return ""
    more = ", ..." if len(passed) > 5 else ""
    ending = f"; passed over: {', '.join(passed[:5])}{more}" if passed else ""
    trains = "trains" if len(train) == 1 else "train"
    return f"{root}: {', '.join(train)} {trains}, {val} validates{ending}"


def read_folds(root: Path, names: list[str], folds: list[str]) -> Splits:
    """Read a cross-validation, `FOLD/CLASS/*`: the lowest fold validates, the others train."""
    folds = sorted(folds, key=lambda name: (int(FOLD.fullmatch(name)[1]), name))
    for name in folds:
        refuse_data_set(root / name)
    if len(folds) == 1:
        raise InputError(f"{root} has {folds[0]} alone; expected a second such folder, to train on")
    walk = Walk()
    images: dict[str, list[str]] = {}
    for name in folds[1:]:
        for label, paths in class_images(root / name, walk, may_be_empty=True).items():
            images.setdefault(label, []).extend(paths)
    train = {label: images[label] for label in sorted(images)}
    if len(train) == 1:
        raise InputError(f"{root} has only one class, {next(iter(train))}; at least two are needed")
    val = class_images(root / folds[0], walk, may_be_empty=True)
    walk.report()
    splits = match(f"{root / folds[1]} to {folds[-1]}", train, root / folds[0], val)
    return splits._replace(note=named_splits(root, names, folds[1:], folds[0]))


def refuse_splits(root: Path, names: list[str], train: list[str], val: list[str]) -> None:
    """Raise NoClasses if any of the folders is a split, and so no class."""
    others = [name for name in train if name.lower() != "train"]
    # A folder "train" of images may be a class: locomotives.
    if others or any(sub_folders(root / name) for name in train):
        name = (others or train)[0]
        raise NoClasses(f"{root} has {name}, but neither val nor test: expected val/CLASS/*")
    if val:
        raise NoClasses(
            f"{root} has {val[0]}, but no train: expected train/CLASS/* beside it (folders named "
            "as splits are never classes)"
        )
    alike = [name for name in names if LIKE_TRAIN.fullmatch(name) or LIKE_VAL.fullmatch(name)]
    # Few folders are splits if one of their names says so: images_train, images_rest.
    inside = {x: set(sub_folders(root / x)) for x in (alike if len(names) > MOST_SPLITS else names)}
    for first, second in combinations(inside, 2):
        common = sorted(inside[first] & inside[second])
        if len(common) > 1 and (first in alike or second in alike):
            raise NoClasses(
                f"{root / first} and {second} are no classes, but hold the same folders "
                f"({', '.join(common[:3])}); name the splits train and val"
            )


def refuse_data_set(folder: Path) -> None:
    """Raise InputError if the folder, to be a class or a fold, holds splits."""
    names = sub_folders(folder)
    train = list(filter(LIKE_TRAIN.fullmatch, names))
    val = [name for name in names if LIKE_VAL.fullmatch(name) and name not in train]
    if train and val:
        # Its own splits can be read only under their usual names.
        is_readable = named(names, *TRAIN) and named(names, *VAL, *TEST)
        raise (InputError if is_readable else NoClasses)(
            f"{folder} is no class: it holds {train[0]} and {val[0]}; give a folder with class "
            "folders, or with train and val (or test) of class folders"
        )


def has_classes(folder: Path) -> bool:
    """Whether the folder has images in class folders, or folders named as splits are.

    Cheap: of every class folder only one image is looked for, and none in deeper folders.
    """
    if not folder.is_dir():
        return False
    names = sub_folders(folder)
    return (
        bool(named(names, *TRAIN))
        or any(FOLD.fullmatch(name) and sub_folders(folder / name) for name in names)
        or any(has_image(folder / name) for name in names)
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
    walk = Walk()
    images = class_images(train, walk), class_images(val, walk, may_be_empty=True)
    walk.report()
    return match(train, images[0], val, images[1])


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
    Frames of one video, by their names, stay together: videos are permuted, and validate until they
    are a fifth of the class. A class that is one video trains.
    """
    parts = {name: split_class(paths, video) for name, paths in images.items()}
    if not any(val for _, val in parts.values()) and any(len(p) >= 5 for p in images.values()):
        warn("by the names of its images every class is one video, whose frames are on both sides")
        parts = {name: split_class(paths, str) for name, paths in images.items()}
    if not any(val for _, val in parts.values()):
        example = os.path.dirname(next(iter(images.values()))[0])
        raise InputError(f"too few images to split: no class has five (such as {example})")
    train, val = ({name: part[side] for name, part in parts.items()} for side in (0, 1))
    return match("the training part", train, "the validation part, a fifth of each class,", val)


def split_class(paths: list[str], group_of: Callable[[str], str]) -> tuple[list[str], list[str]]:
    """The training and the validation paths of one class; those of one group stay together."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(group_of(path), []).append(path)
    train, val = [], []
    # The last one drawn always trains, however large the others are.
    for group in permuted(list(groups)):
        val_is_full = len(val) >= len(paths) // 5
        last = len(train) + len(val) + len(groups[group]) == len(paths) and not train
        (train if val_is_full or last else val).extend(groups[group])
    return sorted(train), sorted(val)


def video(path: str) -> str:
    """The video of which an image is a frame by its name; the path itself for others."""
    frame = FRAME.fullmatch(os.path.splitext(path)[0])
    return frame[1] if frame else path


def permuted(names: list[str]) -> list[str]:
    """The names in the random order of seed 1, from which splits are drawn."""
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(1)).tolist()
    return [names[i] for i in order]


def label(classes: list[str], images: dict[str, list[str]]) -> Samples:
    """All paths in the order of the classes, labelled."""
    paths = [path for name in classes for path in images.get(name, ())]
    labels = [i for i, name in enumerate(classes) for _ in images.get(name, ())]
    return Samples(paths, labels)


def class_images(root: Path, walk: Walk, *, may_be_empty: bool = False) -> dict[str, list[str]]:
    """Class name -> its image paths, both sorted; `walk` keeps account of what is left out.

    Raises InputError for fewer than two classes, for no images, and for a class without images.
    may_be_empty: of a validation split, where empty classes are left out and one class is enough.
    """
    folders = walk.class_folders(root)
    if not folders:
        loose = sum(is_image(entry.name) for entry in entries_of(root))
        if loose:
            raise InputError(
                f"{root} holds {loose} images but no class folders; move every image into "
                f"{root / 'CLASS'}, named as the training folders are (for ImageNet's validation "
                "images the script valprep.sh of soumith/imagenetloader.torch does it)"
            )
        raise InputError(f"no images in {root}: expected class folders with images, CLASS/*.jpg")
    images = {name: walk.images_below(root / name) for name in folders}
    hint = f"; it has {no_images(walk.others)}" if walk.others else ""
    if not any(images.values()):
        raise InputError(
            f"no images in {root}: its {len(folders)} folders hold no file that ends in "
            f"{' '.join(EXTENSIONS)}{hint}"
        )
    if may_be_empty:
        return {name: paths for name, paths in images.items() if paths}
    empty = [name for name, paths in images.items() if not paths]
    if empty:
        raise InputError(f"{root} has {listing(empty)} without images; add some or remove it{hint}")
    if len(images) == 1:
        raise InputError(f"{root} has only one class, {folders[0]}; at least two are needed")
    return images


def listing(names: list[str]) -> str:
    """`class a`, or `3 classes (a, b, c)`, with at most five names."""
    if len(names) == 1:
        return f"class {names[0]}"
    return f"{len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
