"""Miniature copies of the downstream data sets, laid out as their owners distribute them.

    build("CUB-200", folder, monkeypatch)      # as if the archive had been unpacked in `folder`

Names, index files and what else lies in the archives are the true ones; classes and images are few.
"""

import functools
import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import torchvision
from PIL import Image

CALTECH = {"BACKGROUND_Google": 36, "Faces_easy": 33, "accordion": 31}
BIRDS = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
VARIANTS = ["707-320", "DR-400", "F/A-18"]
LAND_USES = ["agricultural", "airplane", "baseballdiamond"]
LUNGS = {"covid": 11, "pneumonia": 5, "regular": 9}
TEXTURES = ["banded", "blotchy", "braided"]
OBJECTS = ["aircraft_carrier", "airplane", "alarm_clock"]
DOMAINS = {"DomainNet-r": "real", "DomainNet-p": "painting", "DomainNet-c": "clipart"}

# What may be given as data_dir, relative to where the archive was unpacked.
DATA_DIRS = {
    "CIFAR-10": ("", "cifar-10-batches-py"),
    "CIFAR-100": ("", "cifar-100-python"),
    "Caltech-101": ("", "101_ObjectCategories"),
    "CUB-200": ("", "CUB_200_2011"),
    "Aircraft": ("", "fgvc-aircraft-2013b", "fgvc-aircraft-2013b/data"),
    "Flowers": ("", "jpg"),
    "Land-Use": ("", "UCMerced_LandUse", "UCMerced_LandUse/Images"),
    "POCUS": ("",),
    "DTD": ("", "dtd"),
    "DomainNet-r": ("", "real"),
    "DomainNet-p": ("", "painting"),
    "DomainNet-c": ("", "clipart"),
}


def files_of(name):
    """The images of a miniature but CIFAR's, one list a class, relative to where it is unpacked."""
    if name == "Caltech-101":
        top = "101_ObjectCategories"
        return [
            [f"{top}/{c}/image_{i:04d}.jpg" for i in range(1, n + 1)] for c, n in CALTECH.items()
        ]
    if name == "CUB-200":
        top = "CUB_200_2011/images"
        return [[f"{top}/{c}/{c[4:]}_{i:04d}_{i}.jpg" for i in (46, 9, 2, 85)] for c in BIRDS]
    if name == "Aircraft":  # the owner's numbers are in no order
        top = "fgvc-aircraft-2013b/data/images"
        return [[f"{top}/{1900000 - 7 * (3 * c + i):07d}.jpg" for i in range(3)] for c in range(3)]
    if name == "Flowers":  # their numbers are the labels
        return [[f"jpg/image_{80 * c + i:04d}.jpg" for i in range(1, 81)] for c in range(17)]
    if name == "Land-Use":
        top = "UCMerced_LandUse/Images"
        return [[f"{top}/{c}/{c}{i:02d}.tif" for i in range(10)] for c in LAND_USES]
    if name == "POCUS":
        return [sorted(f"{c}/{c}_frame {i}.png" for i in range(n)) for c, n in LUNGS.items()]
    if name == "DTD":
        return [[f"dtd/images/{c}/{c}_{i:04d}.jpg" for i in (1, 2, 0)] for c in TEXTURES]
    top = DOMAINS[name]
    return [
        [f"{top}/{c}/{top}_{label:03d}_{i:06d}.jpg" for i in (1, 2, 4, 3)]
        for label, c in enumerate(OBJECTS, start=1)
    ]


def build(name, folder, monkeypatch=None):
    """Write the miniature of the data set `name`; CIFAR's needs torchvision's MD5 sums replaced."""
    if name.startswith("CIFAR"):
        cifar(name, folder, monkeypatch)
        return
    classes = files_of(name)
    for number, path in enumerate(path for paths in classes for path in paths):
        put(folder / path, number)
    if name in DOMAINS:
        domain(DOMAINS[name], folder, classes)
    elif name in INDEXES:
        INDEXES[name](folder, classes)


@functools.cache
def encoded(kind, seed):
    """An image file of 12 x 10 random pixels."""
    # Of images all alike the batch normalisation would make infinite gradients.
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def put(path, number=0):
    """Write a small image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".png": "PNG", ".tif": "TIFF"}[path.suffix]
    path.write_bytes(encoded(kind, number % 50))


def write(path, *lines):
    """Write a text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def cifar(name, folder, monkeypatch):
    """The official batches with two images each: labels are the batch's number, and 9.

    Returns the folder of the batches and the pixels of the first, uint8 [2, 3, 32, 32].
    """
    kind = getattr(torchvision.datasets, name.replace("-", ""))
    key = "labels" if name == "CIFAR-10" else "fine_labels"
    classes = [f"class {i}" for i in range(10 if name == "CIFAR-10" else 100)]
    top = folder / kind.base_folder
    top.mkdir(parents=True)

    def written(file, content):
        data = pickle.dumps(content)
        (top / file).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    rng = np.random.default_rng(0)
    batches = []
    for attribute in ("train_list", "test_list"):
        table = []
        for number, (file, _) in enumerate(getattr(kind, attribute)):
            batches.append(rng.integers(0, 256, (2, 3072), dtype=np.uint8))
            table.append([file, written(file, {"data": batches[-1], key: [number, 9]})])
        monkeypatch.setattr(kind, attribute, table)
    meta = {**kind.meta, "md5": written(kind.meta["filename"], {kind.meta["key"]: classes})}
    monkeypatch.setattr(kind, "meta", meta)
    return top, batches[0].reshape(2, 3, 32, 32)


def caltech(folder, classes):
    # The owner's background class holds such a file.
    (folder / "101_ObjectCategories/BACKGROUND_Google/tmp").write_text("")


def cub(folder, classes):
    """Of every class the second and the fourth image validate."""
    top = folder / "CUB_200_2011"
    paths = [path.removeprefix("CUB_200_2011/images/") for paths in classes for path in paths]
    ids = range(1, len(paths) + 1)
    write(top / "images.txt", *(f"{i} {path}" for i, path in zip(ids, paths, strict=True)))
    write(top / "image_class_labels.txt", *(f"{i} {(i - 1) // 4 + 1}" for i in ids))
    write(top / "train_test_split.txt", *(f"{i} {i % 2}" for i in ids))
    write(top / "classes.txt", *(f"{i} {name}" for i, name in enumerate(BIRDS, start=1)))
    write(top / "bounding_boxes.txt", *(f"{i} 60.0 27.0 325.0 304.0" for i in ids))
    write(top / "README", "The Caltech-UCSD Birds-200-2011 Dataset")
    write(folder / "attributes.txt", "1 has_bill_shape::curved_(up_or_down)")


def aircraft(folder, classes):
    """Per variant, two images train (one of them in the owner's "val") and one tests."""
    data = folder / "fgvc-aircraft-2013b/data"
    rows = [
        [f"{Path(path).stem} {variant}" for path in paths]
        for variant, paths in zip(VARIANTS, classes, strict=True)
    ]
    parts = {"train": (0, 1), "val": (1, 2), "trainval": (0, 2), "test": (2, 3)}
    for part, (start, end) in parts.items():
        lines = [line for row in rows for line in row[start:end]]
        write(data / f"images_variant_{part}.txt", *lines)
    write(data / "variants.txt", *VARIANTS)
    write(data / "families.txt", "Boeing 707", "DR-400", "F/A-18")
    write(data / "manufacturers.txt", "Boeing", "Robin", "McDonnell Douglas")
    write(folder / "fgvc-aircraft-2013b/README.md", "FGVC-Aircraft Benchmark")


def flowers(folder, classes):
    write(folder / "jpg/files.txt", *(Path(path).name for paths in classes for path in paths))


def dtd(folder, classes):
    """In partition 1 an image of every class trains, one is the owner's "val", one tests."""
    top = folder / "dtd"
    for partition in (1, 2):
        for number, part in enumerate(("train", "val", "test")):
            lines = [f"{name}/{name}_{(number + partition) % 3:04d}.jpg" for name in TEXTURES]
            write(top / "labels" / f"{part}{partition}.txt", *lines)
    write(top / "labels/labels_joint_anno.txt", "banded/banded_0000.jpg banded")
    write(top / "imdb/imdb.mat")


def domain(name, folder, classes):
    """Of every class three images train and one tests; the lists are separate downloads."""
    for part, numbers in (("train", slice(0, 3)), ("test", slice(3, 4))):
        lines = [
            f"{path} {label}" for label, paths in enumerate(classes) for path in paths[numbers]
        ]
        write(folder / f"{name}_{part}.txt", *lines)


INDEXES = {
    "Caltech-101": caltech,
    "CUB-200": cub,
    "Aircraft": aircraft,
    "Flowers": flowers,
    "DTD": dtd,
}


def members(folder: Path):
    """Relative paths of all files below `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
