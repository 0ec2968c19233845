"""`python -m datasets resize` against a plain PIL loop: images/s of one process.

    python benchmarks/resize.py DIR [--repeats N]

DIR is a folder of images of their original size, such as some hundred of ImageNet's, with or
without sub-folders. The plain loop opens, converts to RGB, resizes to 224 x 224 (bilinear, as
training does) and saves with quality 95. Ours does all that the command does, in the calling
process: finding the files, decoding and scaling, writing each under a temporary name and renaming
it, one sync and the comparison of names at the end. The last row has an fsync of every file and of
its folder besides, to show what that costs on the disk that holds the temporary folder (TMPDIR).

Wall time, runs interleaved, every one into a new folder; rates are medians, the ratio is the median
of the runs' ratios.
"""

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.resize import resize_folder, walk
from safe_io import fsync_folder

SIZE = 224


def plain_loop(src: Path, dst: Path) -> None:
    """The straightforward way, which keeps the structure too."""
    for folder in walk(src):
        (dst / folder.name).mkdir(parents=True, exist_ok=True)
        for name in folder.images:
            with Image.open(src / folder.name / name) as image:
                scaled = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            scaled.save(dst / folder.name / name, "JPEG", quality=95)


def ours(src: Path, dst: Path) -> None:
    """The command, without its lines."""
    with contextlib.redirect_stdout(io.StringIO()):
        code = resize_folder(src, dst, size=SIZE, workers=0)
    if code:
        sys.exit(f"some images in {src} are unreadable")


def ours_with_fsync(src: Path, dst: Path) -> None:
    """The command, if it wrote as safe_io.atomic_path does."""
    rename = os.replace

    def sync_and_rename(source: Path, target: Path) -> None:
        with open(source, "rb") as file:
            os.fsync(file.fileno())
        rename(source, target)
        fsync_folder(target.parent)

    with mock.patch.object(os, "replace", sync_and_rename):
        ours(src, dst)


def seconds(resize: Callable[[Path, Path], None], src: Path) -> float:
    """Wall time of one run."""
    with tempfile.TemporaryDirectory() as dst:
        start = time.perf_counter()
        resize(src, Path(dst))
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path, help="folder of images")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # PIL's about odd metadata
    images = sum(len(folder.images) for folder in walk(args.dir))
    if not images:
        sys.exit(f"no images in {args.dir}")

    ways = {"plain PIL loop": plain_loop, "resize": ours, "resize, fsync each": ours_with_fsync}
    # The first round warms caches.
    rounds = [[seconds(way, args.dir) for way in ways.values()] for _ in range(args.repeats + 1)][
        1:
    ]
    print(f"{images} images to {SIZE} x {SIZE}\n")
    print("| way | images/s | ratio |")
    print("|---|---|---|")
    for column, name in enumerate(ways):
        rate = images / statistics.median(times[column] for times in rounds)
        ratio = statistics.median(times[0] / times[column] for times in rounds)
        print(f"| {name} | {rate:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
