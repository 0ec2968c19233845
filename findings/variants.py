"""Changed copies of a data set, and what the changes do to its factors.

    python -m findings variants SRC DST
    python -m findings variants SRC DST -a A.pth --source_dir DIR

writes DST/NAME for every change below: a data set of class folders with the first images of each
class of SRC, changed, of the training and of the validation images.

With -a and --source_dir, `python -m findings factors` measures each in a process of its own, and G,
Frechet distance, D and its share are printed with time and peak memory of the process: for all of
SRC, for the changed images, and for one half of the source's validation images against the other
(DST/halves), whose G should be 0. The folders hold train/CLASS and val/CLASS (or test/CLASS).
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

from console import ArgumentParser, InputError, integer, say
from models import paths

from .reader import read_table

ROOT = Path(__file__).resolve().parent.parent
# Patches a side.
GRID = 4


def patches(image: Image.Image) -> Image.Image:
    """The 4 x 4 grid of equal patches of an image in one fixed order: texture without shape."""
    width, height = image.width // GRID, image.height // GRID
    corners = [(x * width, y * height) for y in range(GRID) for x in range(GRID)]
    shuffled = corners.copy()
    random.Random(0).shuffle(shuffled)
    changed = image.copy()
    for (x, y), corner in zip(shuffled, corners, strict=True):
        changed.paste(image.crop((x, y, x + width, y + height)), corner)
    return changed


# Name -> change of an RGB image.
CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "unchanged": lambda image: image,
    "greyscale": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "inverted": ImageOps.invert,
    "blurred_1": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "blurred_2": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "patches": patches,
}


def images_by_class(folder: Path) -> dict[str, list[Path]]:
    """Class -> its sorted images. Raises InputError where there are no classes."""
    classes = sorted(path for path in folder.glob("*/") if path.is_dir())
    if not classes:
        raise InputError(f"no class folders in {folder}; it must hold CLASS/IMAGE")
    return {path.name: sorted(path.iterdir()) for path in classes}


def make_folders(folder: Path, classes: dict[str, list[Path]]) -> None:
    """Make train/CLASS and val/CLASS; InputError where the folder is there already."""
    try:
        folder.mkdir(parents=True)
        for split in ("train", "val"):
            for name in classes:
                (folder / split / name).mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}; give another DST") from error


def write_changed(src: Path, folder: Path, change: Callable, samples: int) -> None:
    """Write a data set of the first images of each class of src, changed."""
    splits = {"train": images_by_class(src / "train"), "val": images_by_class(validation(src))}
    make_folders(folder, splits["train"])
    for split, classes in splits.items():
        for name, files in classes.items():
            for path in files[:samples]:
                try:
                    with Image.open(path) as image:
                        changed = change(image.convert("RGB"))
                except OSError as error:
                    raise InputError(f"cannot read {path}: {error}; remove it") from error
                changed.save(folder / split / name / f"{path.stem}.png")


def validation(folder: Path) -> Path:
    """The folder of the validation images."""
    return folder / ("val" if (folder / "val").is_dir() else "test")


def write_halves(source_dir: Path, folder: Path) -> None:
    """Write a data set whose splits are the two halves of the source's validation images."""
    classes = images_by_class(validation(source_dir))
    make_folders(folder, classes)
    for name, files in classes.items():
        for half, chosen in (("val", files[::2]), ("train", files[1::2])):
            for path in chosen:
                shutil.copy(path, folder / half / name)


def measure(label: str, folder: Path, table: Path, words: list[str]) -> int:
    """Run `findings factors` on a folder; print its row of the table, and return its exit code."""
    command = [sys.executable, "-m", "findings", "factors", *words]
    command += ["--dataset", "Folder", "--data_dir", str(folder), "--csv", str(table)]
    start = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode == 0:
        seconds = time.monotonic() - start
        rows = read_table(table).rows
        row = rows[rows["dataset"] == f"Folder:{folder.name}"].iloc[-1]
        g, d, share = (
            f"{float(row[name]):.4f} +- {float(row[f'{name}_error']):.4f}"
            for name in ("G", "D", "D_share")
        )
        say(
            f"| {label} | {row['samples']} | {g} | {float(row['frechet']):.4f} | {d} | {share} "
            f"| {seconds:.0f} | {usage.ru_maxrss / 1024:.0f} |"
        )
    return process.returncode


def main(argv: list[str]) -> int:
    parser = ArgumentParser(__doc__, prog="python -m findings variants")
    add = parser.add_argument
    add("src", type=Path, metavar="SRC", help="folder of the data set")
    add("dst", type=Path, metavar="DST", help="folder for the copies")
    add("--samples", type=integer(1), default=500, help="changed images of each class, at most")
    add("-a", help="file of theta_A, to measure the factors; a bare name: in ckpt/")
    add("--source_dir", type=Path, help="images that theta_A was trained on")
    add("--image_size", type=integer(32), default=32, help="pixels a side, when they are measured")
    args = parser.parse_args(argv)
    if bool(args.a) != bool(args.source_dir):
        raise InputError("-a and --source_dir are needed together, to measure the factors")

    src, dst = args.src.resolve(), args.dst.resolve()
    folders = {name: dst / name for name in CHANGES}
    for name, change in CHANGES.items():
        write_changed(src, folders[name], change, args.samples)
        say(folders[name])
    if not args.a:
        return 0

    options = ["-a", str(paths.locate(args.a).resolve()), "--image_size", str(args.image_size)]
    options += ["--num_workers", "0", "--source_dir"]
    source, halves = args.source_dir.resolve(), dst / "halves"
    write_halves(source, halves)
    say("| target | images | G | Frechet | D | D share | s | memory, MiB |")
    say("|---|---|---|---|---|---|---|---|")
    for label, folder in {"all": src, **folders, "half of the source": halves}.items():
        of_source = [str(halves), "--source", "Folder"] if folder == halves else [str(source)]
        code = measure(label, folder, dst / "factors.csv", [*options, *of_source])
        if code:
            return code
    return 0
