"""ImageNet (ILSVRC-2012) in its usual layouts, and Tiny-ImageNet-200."""

import os
from pathlib import Path

from .folder import Splits, class_images, match, named_splits, read_pair
from .indexed import check_images, read_lines
from .listing import Walk

# Training and validation folder. The first two are those of the original code: images scaled to
# 224 x 224 beforehand, and as distributed.
LAYOUTS = (
    ("ILSVRC2012_img_train_224", "ILSVRC2012_img_val_224"),
    ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
    ("train", "val"),
)
TINY = "tiny-imagenet-200"
EXPECTED = (
    ", ".join(f"{train} and {val}" for train, val in LAYOUTS)
    + f" (each with class folders), or {TINY}"
)


def layout(top: Path) -> tuple[Path, Path] | None:
    """The training and the validation folder of the first layout in `top`, None without any."""
    for train, val in LAYOUTS:
        if (top / train).is_dir() and (top / val).is_dir():
            return top / train, top / val
    return None


def read(top: Path) -> Splits:
    """Read the first layout in `top`. Classes are the sorted folder names (WNIDs)."""
    train, val = layout(top)
    annotations = val / "val_annotations.txt"
    splits = read_tiny(train, annotations) if annotations.is_file() else read_pair(train, val)
    others = [name for names in LAYOUTS for name in names if (top / name).is_dir()]
    return splits._replace(note=named_splits(top, others, [train.name], val.name))


def read_tiny(train: Path, annotations: Path) -> Splits:
    """Read Tiny-ImageNet as distributed: train/WNID/images/*.JPEG, and val/images with a list.

    annotations: a line per validation image: file name, WNID, then a box, separated by tabs.
    Raises InputError when list, images and training classes disagree.
    """
    walk = Walk(known="_boxes.txt")
    train_images = class_images(train, walk)
    walk.report()
    folder = annotations.parent / "images"
    val_images: dict[str, list[str]] = {}
    entries = []
    for number, line in read_lines(annotations):
        name, wnid = [*line.split("\t"), ""][:2]
        path = os.path.join(folder, name)
        entries.append((number, path))
        val_images.setdefault(wnid, []).append(path)
    check_images(annotations, entries)
    return match(train, train_images, annotations, val_images)
