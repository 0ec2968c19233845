"""ImageNet (ILSVRC-2012) in the layouts people have it in, Tiny-ImageNet-200 included."""

import os
from pathlib import Path

from .folder import Found, class_images, match, read_pair
from .lists import check_images, read_lines

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


def read(root: Path) -> Found | None:
    """Read the first layout there is in `root` (or in its sub-folder tiny-imagenet-200).

    Classes are the sorted folder names (WNIDs). Raises InputError for what `folder.read_pair`
    refuses.
    """
    found = splits(root)
    if found is None:
        return None
    train, val = found
    annotations = val / "val_annotations.txt"
    return read_tiny(train, annotations) if annotations.is_file() else read_pair(train, val)


def locate(root: Path) -> Path | None:
    """The folder of the two splits; None when `root` holds nothing that `read` knows."""
    found = splits(root)
    return found[0].parent if found else None


def splits(root: Path) -> tuple[Path, Path] | None:
    """The training and the validation folder of the first layout there is."""
    for parent in (root, root / TINY):
        for train, val in LAYOUTS:
            if (parent / train).is_dir() and (parent / val).is_dir():
                return parent / train, parent / val
    return None


def read_tiny(train: Path, annotations: Path) -> Found:
    """Read Tiny-ImageNet as distributed: train/WNID/images/*.JPEG, and val/images with a list.

    annotations: a line per validation image: file name, WNID, then a box, separated by tabs.
    Raises InputError when list, images and training classes disagree.
    """
    train_images = class_images(train)
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
