"""ImageNet (ILSVRC-2012) in the layouts people have it in, Tiny-ImageNet-200 included."""

import os
from pathlib import Path

from safe_io import InputError

from .folder import Found, class_images, match, read_pair

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
    for parent in (root, root / TINY):
        for train, val in LAYOUTS:
            if (parent / train).is_dir() and (parent / val).is_dir():
                annotations = parent / val / "val_annotations.txt"
                if annotations.is_file():
                    return read_tiny(parent / train, annotations)
                return read_pair(parent / train, parent / val)
    return None


def read_tiny(train: Path, annotations: Path) -> Found:
    """Read Tiny-ImageNet as distributed: train/WNID/images/*.JPEG, and val/images with a list.

    annotations: a line per validation image: file name, WNID, then a box, separated by tabs.
    Raises InputError when list, images and training classes disagree.
    """
    train_images = class_images(train)
    folder = annotations.parent / "images"
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    val_images: dict[str, list[str]] = {}
    lines = annotations.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        name, wnid = [*line.split("\t"), ""][:2]
        if name not in present:
            raise InputError(f"{annotations}, line {number}: there is no image {folder / name}")
        val_images.setdefault(wnid, []).append(str(folder / name))
    if not val_images:
        raise InputError(f"{annotations} is empty: expected a line per validation image")
    return match(train, train_images, annotations, val_images)
