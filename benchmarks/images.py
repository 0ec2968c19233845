"""The image pipeline and `python -m datasets resize` against PIL: images/s, and pixels.

    python benchmarks/images.py [--originals DIR] [--repeats N]

DIR is a folder of JPEGs of their original size, such as some hundred of ImageNet's; they are also
measured scaled to 224 x 224 beforehand. Without DIR only arrays of CIFAR's size are measured.

Training batches: both sides make normalised float batches; ours as datasets.loader does it in the
calling process; the PIL chain is open, RGB, Resize, RandomResizedCrop, RandomHorizontalFlip,
ToTensor, Normalize for each image. Processor time of one thread. "difference" is the mean over all
pixels after decoding and resizing, in levels of 255.

Resizing: the plain loop opens, converts to RGB, resizes to 224 x 224 (bilinear, as training does)
and saves with quality 95. Ours does all that the command does, in the calling process: listing the
files, decoding and scaling, writing each under a temporary name and renaming it, one sync at the
end. The last row also has an fsync of every file and of its folder, to show the cost of that on the
disk of the temporary folder (TMPDIR). Wall time, each run into a new folder.

Runs are interleaved; rates are medians, the ratio is the median of the runs' ratios.
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

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.images import ImageArray, ImageFiles, Images
from datasets.loader import make_loader
from datasets.resize import resize_folder
from safe_io import fsync_folder

BATCH_SIZE = 100
SIZE = 224


def pil_chain(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """The published training transform, as the original code writes it."""
    return transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.RandomResizedCrop(size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.225] * 3),
        ]
    )


def open_rgb(path: str | Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def processor_seconds(make_batches: Callable[[], None]) -> float:
    start = time.process_time()
    make_batches()
    return time.process_time() - start


# Training batches


def compare(
    name: str, dataset: Images, pil_images: list[Callable[[], Image.Image]], repeats: int
) -> None:
    """Print a row of the table. pil_images: a function for each image, as PIL reads it."""
    size = dataset.image_size
    chain = pil_chain(size)
    loader = make_loader(
        dataset, batch_size=BATCH_SIZE, seed=0, train=True, num_workers=0, device="cpu"
    )

    def ours() -> None:
        for _ in loader:
            pass

    def pil() -> None:
        for first in range(0, len(pil_images), BATCH_SIZE):
            torch.stack([chain(read()) for read in pil_images[first : first + BATCH_SIZE]])

    difference = statistics.mean(
        np.abs(
            dataset[index][0].permute(1, 2, 0).numpy().astype(float)
            - np.asarray(transforms.Resize((size, size))(read()), dtype=float)
        ).mean()
        for index, read in enumerate(pil_images)
    )
    # The first round warms caches.
    rounds = [(processor_seconds(pil), processor_seconds(ours)) for _ in range(repeats + 1)][1:]
    rates = [len(dataset) / statistics.median(column) for column in zip(*rounds, strict=True)]
    ratio = statistics.median(slow / quick for slow, quick in rounds)
    print(f"| {name} | {rates[0]:.0f} | {rates[1]:.0f} | {ratio:.2f} | {difference:.4f} |")


def compare_files(name: str, paths: list[Path], repeats: int) -> None:
    dataset = ImageFiles([str(path) for path in paths], [0] * len(paths), image_size=SIZE)
    compare(name, dataset, [lambda path=path: open_rgb(path) for path in paths], repeats)


def compare_pipelines(originals: list[Path], repeats: int) -> None:
    """Print the table of training batches."""
    print("| images | PIL chain, images/s | ours, images/s | ratio | difference, levels |")
    print("|---|---|---|---|---|")
    if originals:
        compare_files("JPEG, original size", originals, repeats)
        with tempfile.TemporaryDirectory() as folder:
            scaled = [Path(folder, f"{i:05d}.jpg") for i in range(len(originals))]
            for source, target in zip(originals, scaled, strict=True):
                image = open_rgb(source).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
                image.save(target, quality=90)
            compare_files(f"JPEG, {SIZE} x {SIZE}", scaled, repeats)
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8)
    arrays = [lambda image=image: Image.fromarray(image) for image in pixels]
    dataset = ImageArray(pixels, [0] * len(pixels), image_size=32)
    compare("array, 32 x 32 (CIFAR)", dataset, arrays, repeats)


# Resizing


def plain_loop(src: Path, dst: Path) -> None:
    """The straightforward way."""
    for path in src.iterdir():
        scaled = open_rgb(path).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        scaled.save(dst / path.name, "JPEG", quality=95)


def command(src: Path, dst: Path) -> None:
    """The command, without its lines."""
    with contextlib.redirect_stdout(io.StringIO()):
        code = resize_folder(src, dst, size=SIZE, workers=0)
    if code:
        sys.exit(f"some images in {src} are unreadable")


def command_with_fsync(src: Path, dst: Path) -> None:
    """The command, if it wrote as safe_io.atomic_path does."""
    rename = os.replace

    def sync_and_rename(source: Path, target: Path) -> None:
        with open(source, "rb") as file:
            os.fsync(file.fileno())
        rename(source, target)
        fsync_folder(target.parent)

    with mock.patch.object(os, "replace", sync_and_rename):
        command(src, dst)


def wall_seconds(resize: Callable[[Path, Path], None], src: Path) -> float:
    with tempfile.TemporaryDirectory() as dst:
        start = time.perf_counter()
        resize(src, Path(dst))
        return time.perf_counter() - start


def compare_resizing(originals: list[Path], repeats: int) -> None:
    """Print the table of resizing."""
    variants = {
        "plain PIL loop": plain_loop,
        "resize": command,
        "resize, fsync of every file": command_with_fsync,
    }
    with tempfile.TemporaryDirectory() as folder:
        for path in originals:
            (Path(folder) / path.name).symlink_to(path.resolve())
        # The first round warms caches.
        rounds = [
            [wall_seconds(variant, Path(folder)) for variant in variants.values()]
            for _ in range(repeats + 1)
        ][1:]
    print(f"\n| {len(originals)} images to {SIZE} x {SIZE} | images/s | ratio |")
    print("|---|---|---|")
    for column, name in enumerate(variants):
        rate = len(originals) / statistics.median(times[column] for times in rounds)
        ratio = statistics.median(times[0] / times[column] for times in rounds)
        print(f"| {name} | {rate:.0f} | {ratio:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--originals", type=Path, help="folder of JPEGs of original size")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # PIL's about odd metadata

    originals = []
    if args.originals:
        files = sorted(args.originals.iterdir())
        originals = [path for path in files if path.suffix.lower() in (".jpg", ".jpeg")]
        if not originals:
            sys.exit(f"no JPEG in {args.originals}")
    compare_pipelines(originals, args.repeats)
    if originals:
        compare_resizing(originals, args.repeats)


if __name__ == "__main__":
    main()
