"""Two processes under torchrun (Gloo, on the CPU) compute what one does."""

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import drawn_images
import pytest
import torch

from console import InputError
from datasets.loader import BatchOrder
from models import build, checkpoint

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize("images", [40, 41, 43, 49])
def test_global_batch_is_the_same_for_any_number_of_processes(images, processes):
    whole = list(BatchOrder(images, batch_size=10, seed=0, shuffle=True))
    parts = [
        BatchOrder(images, batch_size=10, seed=0, shuffle=True, rank=r, world_size=processes)
        for r in range(processes)
    ]
    shards = [list(part) for part in parts]
    # A last batch that gives a process fewer than two images is dropped.
    batches = images // 10 + (images % 10 >= 2 * processes)
    assert [len(part) for part in parts] == [batches] * processes
    for number in range(batches):
        indices = [shard[number][1] for shard in shards]
        assert min(map(len, indices)) >= 2
        assert sorted(chain(*indices)) == sorted(whole[number][1])
        weights = [part.weight(number) for part in parts]
        assert sum(weights) == pytest.approx(processes)
        mean = sum(w * sum(i) / len(i) for w, i in zip(weights, indices, strict=True)) / processes
        assert mean == pytest.approx(sum(whole[number][1]) / len(whole[number][1]))


def test_validation_shards_hold_every_image_once():
    shards = [
        BatchOrder(10, batch_size=3, seed=0, shuffle=False, rank=r, world_size=4) for r in range(4)
    ]
    assert len({len(shard) for shard in shards}) == 1
    assert sorted(i for shard in shards for _, batch in shard for i in batch) == list(range(10))


def test_batch_too_small_for_the_processes_is_refused():
    from datasets.images import ImageArray
    from datasets.loader import make_loader

    pixels = torch.zeros(20, 32, 32, 3, dtype=torch.uint8).numpy()
    images = ImageArray(pixels, [0] * 20, image_size=32)
    with pytest.raises(InputError, match="a batch of 3 is less than two images for each of 2"):
        make_loader(
            images,
            batch_size=3,
            seed=0,
            train=True,
            num_workers=0,
            device="cpu",
            rank=0,
            world_size=2,
        )


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Images of four classes, uneven for two processes, and a network without BatchNorm."""
    folder = tmp_path_factory.mktemp("task")
    drawn_images.draw(
        folder / "images", task="shapes", classes=3, train_per_class=15, val_per_class=5
    )
    torch.manual_seed(0)
    checkpoint.write(folder / "a.pth", build("vit_small", 10, image_size=32).state_dict())
    return folder


def fine_tune(task, name, *options, processes):
    launcher = []
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        launcher += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    command = [
        *(sys.executable, *launcher, ROOT / "finetune.py", "--dataset", "Folder"),
        *("--data_dir", task / "images", "--arch", "vit_small", "--image_size", 32),
        *("--max_epoch", 1, "--batch_size", 12, "--num_workers", 0, "--keep", "last"),
        *("-a", task / "a.pth", "-b", task / f"{name}.pth", *options),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=240,
    )


def test_two_processes_train_like_one(task):
    records, finals = [], []
    for processes in (1, 2):
        done = fine_tune(task, f"b{processes}", processes=processes)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
        assert done.stdout.count("epoch 1/1") == 1
        assert done.stdout.count("theta_FB:") == 1
        records.append(json.loads((task / f"b{processes}.json").read_text()))
        finals.append(torch.load(task / f"b{processes}.pth"))
    one, two = records
    assert two["steps"] == one["steps"] == 4  # 45 images: of the last nine one process has five
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    # Fifteen images in batches of twelve on two processes: nothing is padded or counted twice.
    assert two["val_acc"] == one["val_acc"]
    for key, value in finals[0].items():
        assert torch.allclose(value, finals[1][key], atol=1e-5), key


def test_failing_process_ends_all_with_its_error(task):
    done = fine_tune(task, "bad", "--data_dir", task / "nothing", processes=2)
    assert done.returncode != 0
    assert f"{task / 'nothing'}" in done.stderr
    assert not (task / "bad.pth").exists()


def test_error_of_the_first_process_is_said_once(task):
    """Where the others wait for its decision."""
    options = ("--dataset", "CUB-200", "--data_dir", task / "nothing", "--download")
    done = fine_tune(task, "bad", *options, processes=2)
    assert done.returncode != 0
    assert done.stderr.count("error: no CUB-200 in ") == 1
    assert "broadcast" not in done.stderr
