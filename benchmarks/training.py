"""The training loop against plain torch: time per step, images/s, waiting for data, memory.

    python benchmarks/training.py [--arch A] [--image_size S] [--batch_size N] [--device D]
        [--amp M] [--images DIR] [--num_workers W] [--threads T] [--steps K] [--repeats R]

resident: batches of random numbers already on the device. The plain loop has the default memory
format, torch's own SGD and loss.item() in every step; both have the same --amp. Runs of K steps are
interleaved; times are medians, the ratio is the median of the runs' ratios.

through the loader: JPEGs of the folder DIR as often as it takes, else random arrays. "waiting" is
the share of the time spent in the loader while the device has nothing left to do; with
--num_workers 0 it is all of the work on images.

memory: growth of the process (resident set) from iteration 500 to 1,500 of a tiny network, through
the loader. Peak memory, through the loader, is of the GPU's allocator.
"""

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from console import LARGEST
from datasets.images import ImageArray, ImageFiles, Images
from datasets.loader import make_loader
from models import ARCHS, build
from training.device import choose_device, choose_precision, mixed_precision
from training.engine import train_one_epoch
from training.record import Record
from training.resume import ResumeFile
from training.run import Run
from training.schedule import Schedule, make_optimizer

CLASSES = 10


class Resident:
    """A loader over batches that are on the device already."""

    def __init__(self, batches: list, length: int) -> None:
        self.batches, self.length = batches, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator:
        return (self.batches[i % len(self.batches)] for i in range(self.length))

    def weight(self, batch: int) -> float:
        return 1.0


class Timed:
    """A loader that adds up its time for batches, during which the device is idle."""

    def __init__(self, loader: Any, device: torch.device) -> None:
        self.loader, self.device = loader, device
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator:
        batches = iter(self.loader)
        while True:
            synchronize(self.device)
            start = time.perf_counter()
            batch = next(batches, None)
            synchronize(self.device)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def weight(self, batch: int) -> float:
        return self.loader.weight(batch)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def our_loop(
    model: nn.Module, device: torch.device, precision: torch.dtype | None
) -> Callable[[Any], None]:
    """A function that trains one epoch of a loader with the loop of `training`."""
    model.to(device, memory_format=torch.channels_last)
    run = Run(
        model=model,
        optimizer=make_optimizer("sgd", model, lr=0.01, weight_decay=1e-4),
        schedule=Schedule(scheduler="constant", lr=0.01, max_epoch=1, steps_per_epoch=LARGEST),
        record=Record(Path("x.pth"), keep="last", facts={}),
        file=ResumeFile(Path("x.pth"), config={}, save_minutes=math.inf),
        device=device,
        precision=precision,
    )

    def train(loader: Any) -> None:
        train_one_epoch(run, loader)
        run.tally.read(run.epoch)
        run.next_epoch()

    return train


def plain_loop(
    model: nn.Module, device: torch.device, precision: torch.dtype | None
) -> Callable[[Any], None]:
    """The same with nothing but torch, in the default memory format."""
    model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=precision is torch.float16)

    def train(loader: Any) -> None:
        model.train()
        loss_sum = 0.0
        for images, labels in loader:
            optimizer.zero_grad()
            with mixed_precision(device, precision):
                loss = F.cross_entropy(model(images), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            loss_sum += loss.item()

    return train


def seconds(train: Callable[[Any], None], loader: Any, device: torch.device) -> float:
    """Wall time of one epoch."""
    synchronize(device)
    start = time.perf_counter()
    train(loader)
    synchronize(device)
    return time.perf_counter() - start


def random_images(count: int, size: int) -> Images:
    """A data set of random pixels in memory."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return ImageArray(pixels, list(rng.integers(0, CLASSES, count)), image_size=size)


def image_files(folder: Path, count: int, size: int) -> Images:
    """A data set of the JPEGs in a folder, repeated up to `count`."""
    paths = sorted(str(p) for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        sys.exit(f"no JPEG in {folder}")
    paths = [paths[i % len(paths)] for i in range(count)]
    return ImageFiles(paths, [i % CLASSES for i in range(count)], image_size=size)


def compare_resident(args: argparse.Namespace, device: torch.device) -> None:
    """Both loops on batches that are on the device."""
    precision = choose_precision(args.amp, device)
    shape = (args.batch_size, 3, args.image_size, args.image_size)
    loaders, loops = {}, {}
    for name, loop in (("plain torch", plain_loop), ("ours", our_loop)):
        torch.manual_seed(0)
        images = [torch.randn(shape, device=device) for _ in range(2)]
        if name == "ours":
            images = [x.contiguous(memory_format=torch.channels_last) for x in images]
        labels = torch.randint(CLASSES, (args.batch_size,), device=device)
        loaders[name] = Resident([(x, labels) for x in images], args.steps)
        model = build(args.arch, CLASSES, image_size=args.image_size)
        loops[name] = loop(model, device, precision)
    rounds = []
    # The first round warms up: cuDNN tries its algorithms, memory is allocated.
    for _ in range(args.repeats + 1):
        rounds.append(
            {
                name: seconds(loop, loaders[name], device) / args.steps
                for name, loop in loops.items()
            }
        )
    for name in loops:
        step = statistics.median(times[name] for times in rounds[1:])
        ratio = statistics.median(times["plain torch"] / times[name] for times in rounds[1:])
        rate = args.batch_size / step
        print(f"| {name}, resident | {1000 * step:.1f} | {rate:.0f} | {ratio:.2f} | - | - |")


def measure_loader(args: argparse.Namespace, device: torch.device) -> None:
    """Our loop through the loader."""
    count = args.steps * args.batch_size
    if args.images:
        dataset = image_files(args.images, count, args.image_size)
    else:
        dataset = random_images(count, args.image_size)
    loader = make_loader(
        dataset,
        batch_size=args.batch_size,
        seed=0,
        train=True,
        num_workers=args.num_workers,
        device=device,
    )
    model = build(args.arch, CLASSES, image_size=args.image_size)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    loop = our_loop(model, device, choose_precision(args.amp, device))
    loop(loader)  # starts the workers
    step = statistics.median(
        seconds(loop, loader, device) / args.steps for _ in range(args.repeats)
    )
    timed = Timed(loader, device)
    waiting = []
    for _ in range(args.repeats):
        timed.waited = 0.0
        total = seconds(loop, timed, device)
        waiting.append(timed.waited / total)
    peak = "-"
    if device.type == "cuda":
        peak = f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB"
    print(
        f"| ours, through the loader, {args.num_workers} workers | {1000 * step:.1f} | "
        f"{args.batch_size / step:.0f} | - | {100 * statistics.median(waiting):.0f} % | {peak} |"
    )


def measure_growth(device: torch.device) -> None:
    """Print how much the process grows over 1,000 iterations."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(CLASSES)
    )
    model(torch.zeros(2, 3, 32, 32))
    loader = make_loader(
        random_images(6000, 32), batch_size=4, seed=0, train=True, num_workers=0, device=device
    )
    sizes = []
    model.register_forward_pre_hook(lambda *_: sizes.append(resident_mib()))
    our_loop(model, device, None)(loader)
    print(f"\nmemory growth over 1,000 iterations: {sizes[1499] - sizes[499]:.2f} MiB")


def resident_mib() -> float:
    """Memory of this process in MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--arch", choices=ARCHS, default="resnet50_w16")
    add("--image_size", type=int, default=32)
    add("--batch_size", type=int, default=128)
    add("--device", default="auto")
    add("--amp", choices=("auto", "off", "bf16", "fp16"), default="auto")
    add("--images", type=Path, help="folder of JPEGs for the loader")
    add("--num_workers", type=int, default=0)
    add("--threads", type=int, default=1, help="of torch on the CPU")
    add("--steps", type=int, default=10, help="optimiser steps of a run")
    add("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(f"{args.arch}, {args.image_size} x {args.image_size}, batch {args.batch_size}, on {name}")
    print(f"precision {choose_precision(args.amp, device) or torch.float32}\n")
    print("| loop | ms a step | images/s | ratio | waiting | peak memory |")
    print("|---|---|---|---|---|---|")
    compare_resident(args, device)
    measure_loader(args, device)
    measure_growth(device)


if __name__ == "__main__":
    main()
