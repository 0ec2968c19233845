"""Batches: the same for any number of workers, whole epochs, damaged images, signals."""

import multiprocessing
import os
import pickle
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import drawn_images
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from console import InputError
from datasets import load
from datasets.images import ImageArray, ImageFiles
from datasets.loader import make_loader
from datasets.transforms import normalize

ROOT = Path(__file__).parents[1]


def in_memory(count, size=8):
    """A data set of noise whose image number is its label."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return ImageArray(pixels, range(count), image_size=size)


def loader_of(dataset, *, train=True, num_workers=0, batch_size=4, seed=0):
    return make_loader(
        dataset,
        batch_size=batch_size,
        seed=seed,
        train=train,
        num_workers=num_workers,
        device="cpu",
    )


def epoch_of(loader, epoch=0, first_batch=0):
    loader.set_epoch(epoch, first_batch)
    return list(loader)


def same(ours, theirs):
    return len(ours) == len(theirs) and all(
        torch.equal(a, b)
        for pair in zip(ours, theirs, strict=True)
        for a, b in zip(*pair, strict=True)
    )


def labels_of(batches):
    return [label for _, labels in batches for label in labels.tolist()]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """(train, val) of drawn images in files."""
    folder = tmp_path_factory.mktemp("drawn")
    drawn_images.draw(folder, classes=3, train_per_class=9, val_per_class=4, size=24)
    return load("Folder", folder, image_size=16)[:2]


# Format


@pytest.mark.parametrize("num_workers", [0, 2])
def test_validation_gives_every_image_in_order_normalised_and_channels_last(drawn, num_workers):
    val = drawn[1]
    loader = loader_of(val, train=False, num_workers=num_workers, batch_size=5)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [5, 5, 2]
    assert (len(loader), loader.num_images, loader.unreadable) == (3, 12, [])
    for images, labels in batches:
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert images.is_contiguous(memory_format=torch.channels_last)
    expected = normalize(torch.stack([val[i][0] for i in range(12)]))
    assert torch.equal(torch.cat([images for images, _ in batches]), expected)
    assert labels_of(batches) == val.labels.tolist()


def test_grey_and_colour_images_make_one_batch(tmp_path):
    for number, mode in enumerate(("L", "RGB")):
        Image.new(mode, (10, 10)).save(tmp_path / f"{number}.jpg")
    paths = [str(tmp_path / f"{number}.jpg") for number in range(2)]
    ((images, _),) = loader_of(ImageFiles(paths, [0, 1], image_size=10))
    assert images.shape == (2, 3, 10, 10)


# Order and augmentation


@pytest.mark.parametrize("train", [True, False])
def test_batches_are_the_same_for_any_number_of_workers(drawn, train):
    dataset = drawn[0] if train else drawn[1]
    loaders = [loader_of(dataset, train=train, num_workers=workers) for workers in (0, 1, 2)]
    for epoch in range(3):
        batches = [epoch_of(loader, epoch) for loader in loaders]
        assert same(batches[0], batches[1])
        assert same(batches[0], batches[2])


def test_order_differs_between_epochs_and_seeds_and_repeats_between_runs():
    runs = [loader_of(in_memory(40), seed=seed) for seed in (0, 0, 1)]
    orders = [[labels_of(epoch_of(loader, epoch)) for epoch in (0, 1)] for loader in runs]
    assert orders[0] == orders[1]
    assert len({tuple(order) for run in orders for order in run}) == 4
    assert all(sorted(order) == list(range(40)) for run in orders for order in run)


def test_four_workers_augment_eight_images_in_eight_ways_and_anew_next_epoch():
    dataset = in_memory(1, size=32)
    dataset = ImageArray(dataset.pixels.expand(8, -1, -1, -1).numpy(), [0] * 8, image_size=32)
    loader = loader_of(dataset, num_workers=4, batch_size=2)
    images = torch.cat([images for epoch in (0, 1) for images, _ in epoch_of(loader, epoch)])
    assert len({image.numpy().tobytes() for image in images}) == 16


@given(st.integers(2, 30), st.integers(2, 9), st.integers(0, 20), st.integers(0, 3), st.booleans())
def test_skipping_batches_leaves_the_rest_as_it_was(count, batch_size, first, epoch, train):
    loader = loader_of(in_memory(count), train=train, batch_size=batch_size)
    batches = epoch_of(loader, epoch)
    assert len(batches) == len(loader)
    rest = epoch_of(loader_of(in_memory(count), train=train, batch_size=batch_size), epoch, first)
    assert same(rest, batches[first:])


@given(st.integers(2, 200), st.integers(2, 50), st.booleans())
def test_every_image_is_seen_once_but_a_last_training_batch_of_one(count, batch_size, train):
    loader = loader_of(in_memory(count, size=1), train=train, batch_size=batch_size)
    batches = epoch_of(loader)
    sizes = [len(labels) for _, labels in batches]
    dropped = int(train and count % batch_size == 1)
    assert sum(sizes) == count - dropped
    assert len(loader) == len(sizes)
    assert set(sizes[:-1]) <= {batch_size}
    assert not train or min(sizes) > 1
    assert len(set(labels_of(batches))) == count - dropped


def test_training_set_without_a_batch_is_an_error():
    with pytest.raises(InputError, match="1 images give no batch: training needs at least 2"):
        loader_of(in_memory(1))
    assert len(list(loader_of(in_memory(1), train=False))) == 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_left_early_does_not_leak_into_the_next(num_workers):
    loader = loader_of(in_memory(40), num_workers=num_workers)
    expected = epoch_of(loader, 1)
    loader.set_epoch(0)
    next(iter(loader))
    assert same(epoch_of(loader, 1), expected)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_global_generators_are_not_touched(num_workers):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    epoch_of(loader_of(in_memory(10), num_workers=num_workers))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()


# Damaged images


@pytest.fixture
def damaged(tmp_path):
    """300 images of 3 classes whose first two (of class 0) are half a JPEG and an empty file.

    The image number is written in the red channel.
    """
    paths = []
    for number in range(300):
        path = tmp_path / f"image {number:03d}.png"
        image = Image.new("RGB", (8, 8), (number % 256, 0, 0))
        image.save(path, "JPEG" if number == 0 else "PNG")
        paths.append(str(path))
    data = Path(paths[0]).read_bytes()
    Path(paths[0]).write_bytes(data[: len(data) // 2])
    Path(paths[1]).write_bytes(b"")
    return ImageFiles(paths, [number // 100 for number in range(300)], image_size=8)


def red(images):
    """The image numbers."""
    return ((images[:, 0, 4, 4] * 0.225 + 0.5) * 255).round().int().tolist()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_training_images_are_replaced_by_the_next_of_their_class(
    damaged, num_workers, capsys
):
    loader = loader_of(damaged, num_workers=num_workers, batch_size=16)
    for epoch in (0, 1):
        numbers, labels = [], []
        for images, of in epoch_of(loader, epoch):
            numbers += red(images)
            labels += of.tolist()
        # 2 stands in for 0 and 1; 256 ... 299 begin again at 0 in the red channel.
        assert sorted(numbers) == sorted([2, 2, *(n % 256 for n in range(2, 300))])
        assert sorted(labels) == sorted(damaged.labels.tolist())
    assert loader.unreadable == [os.fsdecode(path) for path in damaged.paths[:2]]
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2
    assert all(any(path in line for line in warnings) for path in loader.unreadable)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_validation_images_are_left_out(damaged, num_workers, capsys):
    loader = loader_of(damaged, train=False, num_workers=num_workers, batch_size=32)
    for _ in range(2):
        batches = list(loader)
        assert [len(labels) for _, labels in batches] == [30] + [32] * 8 + [12]
        assert labels_of(batches) == damaged.labels.tolist()[2:]
        assert red(batches[0][0]) == list(range(2, 32))
    assert len(loader.unreadable) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_validation_batch_that_is_wholly_unreadable_is_skipped(damaged):
    batches = list(loader_of(damaged, train=False, batch_size=2))
    assert [len(labels) for _, labels in batches] == [2] * 149


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("train", [True, False])
def test_more_than_one_per_cent_unreadable_is_an_error(damaged, train, num_workers):
    for path in damaged.paths[2:4]:
        Path(os.fsdecode(path)).write_bytes(b"no image")
    loader = loader_of(damaged, train=train, num_workers=num_workers, batch_size=300)
    first = re.escape(os.fsdecode(damaged.paths[0]))
    message = f"^4 of 300 images cannot be read, more than 1 %; the first is {first}: [^\n]*$"
    with pytest.raises(InputError, match=message):
        list(loader)


def test_one_per_cent_unreadable_is_not_yet_an_error(damaged):
    Path(os.fsdecode(damaged.paths[2])).unlink()
    assert sum(len(labels) for _, labels in loader_of(damaged, train=False)) == 297


def test_one_per_cent_is_of_the_images_of_this_process(damaged):
    """Which has a share of them in an epoch, and in time meets all that cannot be read."""

    def loader(train):
        options = {"batch_size": 100, "seed": 11, "num_workers": 0, "device": "cpu"}
        return make_loader(damaged, train=train, rank=0, world_size=2, **options)

    Path(os.fsdecode(damaged.paths[2])).write_bytes(b"no image")
    # The first process has images 0, 2, 4, ... of the validation, two of the bad ones among them.
    with pytest.raises(InputError, match=r"^2 of 150 images cannot be read, more than 1 %"):
        list(loader(train=False))
    damaged.paths[2] = damaged.paths[3]
    training = loader(train=True)
    counts = []
    for epoch in range(6):
        epoch_of(training, epoch)
        counts.append(len(training.unreadable))
    assert (counts[0], counts[-1]) == (1, 2)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_class_without_a_readable_image_is_an_error_in_one_line(damaged, num_workers):
    damaged.labels[2:100] = 1
    loader = loader_of(damaged, num_workers=num_workers)
    with pytest.raises(
        InputError, match=r"^no image of a class can be read, such as .*image 00[01]"
    ):
        list(loader)


# Processes


class Deadly(ImageArray):
    """Kills the process that reads image 5."""

    def images(self, indices):
        if 5 in indices:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().images(indices)


def test_killed_worker_is_an_error_in_one_line():
    dataset = Deadly(in_memory(12).pixels.numpy(), range(12), image_size=8)
    with pytest.raises(InputError, match=r"^a process that loads images was killed.*num_workers$"):
        list(loader_of(dataset, train=False, num_workers=1))


def test_workers_leave_interrupts_to_the_main_process(drawn):
    others = set(multiprocessing.active_children())
    loader = loader_of(drawn[0], num_workers=2, batch_size=2)
    batches = iter(loader)
    # A batch of each: before it has started, a worker may still be interrupted.
    count = len(next(batches)[1]) + len(next(batches)[1])
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    for process in workers:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            os.kill(process.pid, number)
    assert count + sum(len(labels) for _, labels in batches) == 26


def test_data_sets_pickle(drawn):
    for dataset in (*drawn, in_memory(4)):
        copy = pickle.loads(pickle.dumps(dataset))
        assert torch.equal(copy[3][0], dataset[3][0])
        assert copy[3][1] == dataset[3][1]


@pytest.mark.slow
def test_spawned_workers_give_the_same_batches(tmp_path):
    drawn_images.draw(tmp_path / "data", classes=2, train_per_class=4, val_per_class=1, size=8)
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing, sys, torch\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from datasets import load\n"
        "from datasets.loader import make_loader\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method('spawn')\n"
        f"    train = load('Folder', {str(tmp_path / 'data')!r}, image_size=8)[0]\n"
        "    options = dict(batch_size=4, seed=0, train=True, device='cpu')\n"
        "    ours, theirs = (list(make_loader(train, num_workers=n, **options)) for n in (1, 0))\n"
        "    assert len(ours) == 2\n"
        "    assert all(torch.equal(a[0], b[0]) for a, b in zip(ours, theirs))\n"
    )
    subprocess.run([sys.executable, script], check=True, timeout=400)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_are_those_on_the_cpu(drawn):
    options = {"batch_size": 5, "seed": 0, "train": True, "num_workers": 2}
    ours = list(make_loader(drawn[0], device="cuda", **options))
    theirs = list(make_loader(drawn[0], device="cpu", **options))
    for (images, labels), (images_cpu, labels_cpu) in zip(ours, theirs, strict=True):
        assert images.is_cuda
        assert labels.is_cuda
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(images.cpu(), images_cpu, atol=1e-6)
        assert torch.equal(labels.cpu(), labels_cpu)


# The drawn images that other tests train on


def test_drawing_is_deterministic(tmp_path):
    for name in "ab":
        drawn_images.draw(
            tmp_path / name, task="shapes", classes=3, train_per_class=2, val_per_class=2
        )
    files = [sorted((tmp_path / name).rglob("*.*")) for name in "ab"]
    assert len(files[0]) == 12
    contents = [[path.read_bytes() for path in part] for part in files]
    assert contents[0] == contents[1]
    assert len(set(contents[0])) == 12
