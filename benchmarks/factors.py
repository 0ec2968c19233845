"""G, Frechet distance and D of images made odd, with the time and memory that they take.

    python benchmarks/factors.py -a A.pth --source_dir DIR --data_dir DIR [--samples N]
        [--image_size S]

`python -m findings factors` on real images, in a process each: the data set as it is; N images of
each class of it, unchanged, without colour, inverted, and blurred; and one half of the source's
validation images against the other, whose G should be 0. DIRs hold train/CLASS and val/CLASS (or
test/CLASS).
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

ROOT = Path(__file__).resolve().parent.parent

CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "unchanged": lambda image: image,
    "greyscale": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "inverted": ImageOps.invert,
    "blurred, radius 1": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "blurred, radius 2": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
}


def images_by_class(folder: Path) -> dict[str, list[Path]]:
    """Class -> its sorted images."""
    return {path.name: sorted(path.iterdir()) for path in sorted(folder.iterdir())}


def validation_folder(root: Path) -> Path:
    return next(root / name for name in ("val", "test") if (root / name).is_dir())


def write_changed(data: Path, out: Path, change: Callable, samples: int) -> None:
    """Write a data set whose training images are changed; the validation images are not used."""
    for name, paths in images_by_class(data / "train").items():
        for part in ("train", "val"):
            (out / part / name).mkdir(parents=True)
        for path in paths[:samples]:
            with Image.open(path) as image:
                change(image.convert("RGB")).save(out / "train" / name / f"{path.stem}.png")
        shutil.copy(paths[0], out / "val" / name)


def write_halves(source: Path, out: Path) -> None:
    """Write a data set whose splits are the two halves of the source's validation images."""
    for name, paths in images_by_class(validation_folder(source)).items():
        for part, half in (("val", paths[::2]), ("train", paths[1::2])):
            (out / part / name).mkdir(parents=True)
            for path in half:
                shutil.copy(path, out / part / name)


def measure(label: str, source: list, target: list, args: argparse.Namespace, table: Path) -> None:
    """Run the command and print a row of the table."""
    command = [sys.executable, "-m", "findings", "factors", "-a", args.a, "--csv", table]
    command += ["--num_workers", "0", "--image_size", args.image_size, *source, *target]
    start = time.monotonic()
    words = [str(word) for word in command]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(process.returncode)
    seconds = time.monotonic() - start
    with open(table, encoding="utf-8", newline="") as file:
        row = list(csv.DictReader(line for line in file if not line.startswith("#")))[-1]
    g, d, share = (
        f"{float(row[name]):.4f} +- {float(row[f'{name}_error']):.4f}"
        for name in ("G", "D", "D_share")
    )
    print(
        f"| {label} | {row['samples']} | {g} | {float(row['frechet']):.4f} | {d} | {share} "
        f"| {seconds:.0f} | {usage.ru_maxrss / 1024:.0f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-a", type=Path, required=True, help="file of theta_A")
    parser.add_argument("--source_dir", type=Path, required=True, help="images of theta_A")
    parser.add_argument("--data_dir", type=Path, required=True, help="images of the target")
    parser.add_argument("--samples", type=int, default=500, help="of each class, changed")
    parser.add_argument("--image_size", type=int, default=32, help="of pre-training")
    args = parser.parse_args()
    args.a = args.a.resolve()
    source = ["--source_dir", args.source_dir.resolve()]
    print("| target | images | G | Frechet | D | D share | s | memory, MiB |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = folder / "factors.csv"
        whole = ["--dataset", "Folder", "--data_dir", args.data_dir.resolve()]
        measure("all", source, whole, args, table)
        for number, (label, change) in enumerate(CHANGES.items()):
            out = folder / str(number)
            write_changed(args.data_dir, out, change, args.samples)
            measure(label, source, ["--dataset", "Folder", "--data_dir", out], args, table)
        halves = folder / "halves"
        write_halves(args.source_dir, halves)
        half = ["--source", "Folder", "--source_dir", halves]
        target = ["--dataset", "Folder", "--data_dir", halves]
        measure("half of the source", half, target, args, table)


if __name__ == "__main__":
    main()
