"""ImageNet (ILSVRC-2012) in the layouts people have it in, Tiny-ImageNet-200 included."""

import os
from pathlib import Path

from safe_io import InputError

from .folder import Found, Samples, class_images, read_pair

# Training and validation folder. The first two are those of the original code: images scaled to
# 224 x 224 beforehand, and as distributed.
LAYOUTS = (
    ("ILSVRC2012_img_train_224", "ILSVRC2012_img_val_224"),
    ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
    ("train", "val"),
)
TINY = "tiny-imagenet-200"


def read(root: Path) -> Found:
    """Read the first layout there is in `root` (or in its sub-folder tiny-imagenet-200).

    Classes are the sorted folder names (WNIDs). Raises InputError if no layout is found, or for
    what `folder.read_pair` refuses.
    """
    for parent in (root, root / TINY):
        for train, val in LAYOUTS:
            if (parent / train).is_dir() and (parent / val).is_dir():
                annotations = parent / val / "val_annotations.txt"
                if annotations.is_file():
                    return read_tiny(parent / train, annotations)
                return read_pair(parent / train, parent / val)
    pairs = ", ".join(f"{train} and {val}" for train, val in LAYOUTS)
    raise InputError(
        f"no ImageNet in {root}: expected two folders of class folders ({pairs}) or {TINY}"
    )


def read_tiny(train: Path, annotations: Path) -> Found:
    """Read Tiny-ImageNet as distributed: train/WNID/images/*.JPEG, and val/images with a list.

    annotations: a line per validation image: file name, WNID, then a box, separated by tabs.
    Raises InputError when list, images and training classes disagree.
    """
    train_images = class_images(train)
    classes = list(train_images)
    label_of = {name: i for i, name in enumerate(classes)}
    folder = annotations.parent / "images"
    present = set(os.listdir(folder)) if folder.is_dir() else set()
    paths, labels = [], []
    for number, line in enumerate(annotations.read_text(encoding="utf-8").splitlines(), start=1):
        name, wnid = (line.split("\t") + [""])[:2]
        if wnid not in label_of:
            raise InputError(f"{annotations}, line {number}: class '{wnid}' is not in {train}")
        if name not in present:
            raise InputError(f"{annotations}, line {number}: there is no {folder / name}")
        paths.append(str(folder / name))
        labels.append(label_of[wnid])
    if not paths:
        raise InputError(f"{annotations} is empty: expected a line per validation image")
    train_paths = [path for paths in train_images.values() for path in paths]
    train_labels = [label_of[name] for name, paths in train_images.items() for _ in paths]
    return Found(classes, Samples(train_paths, train_labels), Samples(paths, labels))
