"""The image pipeline against the straightforward PIL chain: images/s of one core, and pixels.

    python benchmarks/images.py [--originals DIR] [--repeats N]

DIR is a folder of JPEGs of their original size, such as some hundred of ImageNet's; they are also
measured scaled to 224 x 224 beforehand. Without DIR only arrays of CIFAR's size are measured.

Both sides make normalised float batches for training: ours as datasets.loader does it in the
calling process; the PIL chain is open, RGB, Resize, RandomResizedCrop, RandomHorizontalFlip,
ToTensor, Normalize for each image. Processor time of one thread, runs interleaved; rates are
medians, the ratio is the median of the runs' ratios. "difference" is the mean over all pixels after
decoding and resizing, in levels of 255.
"""

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datasets.images import ImageArray, ImageFiles, Images
from datasets.loader import make_loader

BATCH_SIZE = 100


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


def open_rgb(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def processor_seconds(make_batches: Callable[[], None]) -> float:
    start = time.process_time()
    make_batches()
    return time.process_time() - start


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


def compare_files(name: str, paths: list[str], repeats: int) -> None:
    dataset = ImageFiles(paths, [0] * len(paths), image_size=224)
    compare(name, dataset, [lambda path=path: open_rgb(path) for path in paths], repeats)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--originals", type=Path, help="folder of JPEGs of original size")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # PIL's about odd metadata

    print("| images | PIL chain, images/s | ours, images/s | ratio | difference, levels |")
    print("|---|---|---|---|---|")
    if args.originals:
        paths = sorted(
            str(p) for p in args.originals.iterdir() if p.suffix.lower() in (".jpg", ".jpeg")
        )
        if not paths:
            sys.exit(f"no JPEG in {args.originals}")
        compare_files("JPEG, original size", paths, args.repeats)
        with tempfile.TemporaryDirectory() as folder:
            scaled = [f"{folder}/{i:05d}.jpg" for i in range(len(paths))]
            for source, target in zip(paths, scaled, strict=True):
                image = open_rgb(source).resize((224, 224), Image.Resampling.BILINEAR)
                image.save(target, quality=90)
            compare_files("JPEG, 224 x 224", scaled, args.repeats)
    pixels = np.random.default_rng(0).integers(0, 256, (2000, 32, 32, 3), dtype=np.uint8)
    arrays = [lambda image=image: Image.fromarray(image) for image in pixels]
    dataset = ImageArray(pixels, [0] * len(pixels), image_size=32)
    compare("array, 32 x 32 (CIFAR)", dataset, arrays, args.repeats)


if __name__ == "__main__":
    main()
