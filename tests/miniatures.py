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

CALTECH_COUNTS = {"BACKGROUND_Google": 36, "Faces_easy": 33, "accordion": 31}
CUB_CLASSES = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
VARIANTS = ["707-320", "DR-400", "F/A-18"]
LAND_USES = ["agricultural", "airplane", "baseballdiamond"]
LUNGS = {"covid": 11, "pneumonia": 5, "regular": 9}
TEXTURES = ["banded", "blotchy", "braided"]
OBJECTS = ["aircraft_carrier", "airplane", "alarm_clock"]

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


def build(name, folder, monkeypatch):
    """Write the miniature of the data set `name`; CIFAR's needs torchvision's MD5 sums replaced."""
    if name.startswith("CIFAR"):
        cifar(name, folder, monkeypatch)
    elif name.startswith("DomainNet"):
        domain({"r": "real", "p": "painting", "c": "clipart"}[name[-1]], folder)
    else:
        BUILDERS[name](folder)


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


def caltech(folder):
    top = folder / "101_ObjectCategories"
    for name, count in CALTECH_COUNTS.items():
        for i in range(1, count + 1):
            put(top / name / f"image_{i:04d}.jpg", i)
    # The owner's background class holds such a file.
    (top / "BACKGROUND_Google/tmp").write_text("")


def cub(folder):
    """Four images a class: the second and the fourth validate."""
    top = folder / "CUB_200_2011"
    paths = [f"{name}/{name[4:]}_{i:04d}_{i}.jpg" for name in CUB_CLASSES for i in (46, 9, 2, 85)]
    for number, path in enumerate(paths, start=1):
        put(top / "images" / path, number)
    ids = range(1, len(paths) + 1)
    write(top / "images.txt", *(f"{i} {path}" for i, path in zip(ids, paths, strict=True)))
    write(top / "image_class_labels.txt", *(f"{i} {(i - 1) // 4 + 1}" for i in ids))
    write(top / "train_test_split.txt", *(f"{i} {i % 2}" for i in ids))
    write(top / "classes.txt", *(f"{i} {name}" for i, name in enumerate(CUB_CLASSES, start=1)))
    write(top / "bounding_boxes.txt", *(f"{i} 60.0 27.0 325.0 304.0" for i in ids))
    write(top / "README", "The Caltech-UCSD Birds-200-2011 Dataset")
    write(folder / "attributes.txt", "1 has_bill_shape::curved_(up_or_down)")


def aircraft(folder):
    """Per variant, two images train (one of them in the owner's "val") and one tests."""
    data = folder / "fgvc-aircraft-2013b/data"
    parts = {"train": [], "val": [], "trainval": [], "test": []}
    for number, variant in enumerate(VARIANTS):
        # The owner's numbers are in no order.
        images = [f"{1900000 - 7 * (3 * number + i):07d}" for i in range(3)]
        for image, part in zip(images, ("train", "val", "test"), strict=True):
            put(data / "images" / f"{image}.jpg", number)
            parts[part].append(f"{image} {variant}")
            if part != "test":
                parts["trainval"].append(f"{image} {variant}")
    for part, lines in parts.items():
        write(data / f"images_variant_{part}.txt", *lines)
    write(data / "variants.txt", *VARIANTS)
    write(data / "families.txt", "Boeing 707", "DR-400", "F/A-18")
    write(data / "manufacturers.txt", "Boeing", "Robin", "McDonnell Douglas")
    write(folder / "fgvc-aircraft-2013b/README.md", "FGVC-Aircraft Benchmark")


def flowers(folder):
    """All 1,360 images: their numbers are the labels."""
    for i in range(1, 1361):
        put(folder / "jpg" / f"image_{i:04d}.jpg", i)
    write(folder / "jpg/files.txt", *(f"image_{i:04d}.jpg" for i in range(1, 1361)))


def land_use(folder):
    """Ten images a class."""
    for name in LAND_USES:
        for i in range(10):
            put(folder / "UCMerced_LandUse/Images" / name / f"{name}{i:02d}.tif", i)


def pocus(folder):
    for name, count in LUNGS.items():
        for i in range(count):
            put(folder / name / f"{name}_frame {i}.png", i)


def dtd(folder):
    """Three images a class: in partition 1 one trains, one is the owner's "val", one tests."""
    top = folder / "dtd"
    for partition in (1, 2):
        for place, part in enumerate(("train", "val", "test")):
            lines = [f"{name}/{name}_{(place + partition) % 3:04d}.jpg" for name in TEXTURES]
            write(top / "labels" / f"{part}{partition}.txt", *lines)
            for number, line in enumerate(lines):
                put(top / "images" / line, number)
    write(top / "labels/labels_joint_anno.txt", "banded/banded_0000.jpg banded")
    write(top / "imdb/imdb.mat")


def domain(name, folder):
    """Per class three images that train and one that tests; the lists are separate downloads."""
    for part, numbers in (("train", (1, 2, 4)), ("test", (3,))):
        lines = [
            f"{name}/{kind}/{name}_{label + 1:03d}_{i:06d}.jpg {label}"
            for label, kind in enumerate(OBJECTS)
            for i in numbers
        ]
        write(folder / f"{name}_{part}.txt", *lines)
        for number, line in enumerate(lines):
            put(folder / line.split()[0], number)


BUILDERS = {
    "Caltech-101": caltech,
    "CUB-200": cub,
    "Aircraft": aircraft,
    "Flowers": flowers,
    "Land-Use": land_use,
    "POCUS": pocus,
    "DTD": dtd,
}


def members(folder: Path):
    """Relative paths of all files below `folder`."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
