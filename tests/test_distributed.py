"""Two processes under torchrun (Gloo, on the CPU) compute what one does, and go on like one."""

import json
import os
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

import drawn_images
import pytest
import torch

import finetune
from console import InputError, run
from datasets.images import ImageArray
from datasets.loader import BatchOrder, make_loader
from models import build, checkpoint
from training import distributed
from training.device import choose_device

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
    pixels = torch.zeros(20, 32, 32, 3, dtype=torch.uint8).numpy()
    images = ImageArray(pixels, [0] * 20, image_size=32)
    options = {"seed": 0, "train": True, "num_workers": 0, "device": "cpu", "world_size": 2}
    with pytest.raises(InputError, match="a batch of 3 is less than two images for each of 2"):
        make_loader(images, batch_size=3, **options)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Images of three classes, uneven for two processes, and theta_A with and without BatchNorm."""
    folder = tmp_path_factory.mktemp("task")
    images = {"classes": 3, "train_per_class": 15, "val_per_class": 5}
    drawn_images.draw(folder / "images", task="shapes", **images)
    for arch in ("vit_small", "resnet50_w8"):
        torch.manual_seed(0)
        checkpoint.write(folder / f"{arch}.pth", build(arch, 10, image_size=32).state_dict())
    return folder


def options(task, name, *more, arch="vit_small"):
    """Command line of a fine-tuning of one epoch that writes NAME.pth."""
    words = [
        *("--dataset", "Folder", "--data_dir", task / "images", "--arch", arch),
        *("--image_size", 32, "--max_epoch", 1, "--batch_size", 12, "--num_workers", 0),
        *("--keep", "last", "-a", task / f"{arch}.pth", "-b", task / f"{name}.pth", *more),
    ]
    return [str(word) for word in words]


def torchrun(words):
    """finetune.py in two processes, the first of a process group of their own."""
    launcher = "-m torch.distributed.run --nproc_per_node 2 --rdzv_backend c10d"
    command = [sys.executable, *launcher.split(), "--rdzv_endpoint", "localhost:0"]
    return subprocess.Popen(
        [*command, str(ROOT / "finetune.py"), *words],
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_train_like_one(task):
    assert run(lambda: finetune.main(options(task, "one"))) == 0
    process = torchrun(options(task, "two"))
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "Warning" not in err
    assert out.count("epoch 1/1") == 1
    assert out.count("theta_FB:") == 1
    one, two = (json.loads((task / f"{name}.json").read_text()) for name in ("one", "two"))
    assert two["steps"] == one["steps"] == 4  # 45 images: of the last nine one process has five
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    # Fifteen images in batches of twelve on two processes: nothing is padded or counted twice.
    assert two["val_acc"] == one["val_acc"]
    one, two = (torch.load(task / f"{name}.pth") for name in ("one", "two"))
    for key, value in one.items():
        assert torch.allclose(value, two[key], atol=1e-5), key


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--dataset", "Folder"), ("--dataset", "CUB-200", "--download")])
def test_error_ends_all_processes_and_is_said_once(task, more):
    """Of all processes, or of the first one alone, for whose decision the others wait."""
    process = torchrun(options(task, "bad", *more, "--data_dir", task / "nothing"))
    _, err = process.communicate(timeout=400)
    assert process.returncode != 0
    assert err.count(f"error: no {more[1]} in {task / 'nothing'}") == 1, err
    assert "broadcast" not in err
    assert not (task / "bad.pth").exists()


@pytest.mark.slow
def test_signal_saves_and_resuming_gives_the_same_numbers(task):
    """A scheduler signals all; torchrun then passes it on to those that have had it already.

    After 30 seconds torchrun would kill.
    """
    more = ("--batch_size", 4, "--log_interval", 1)
    process = torchrun(options(task, "b", *more, arch="resnet50_w8"))
    assert any("epoch 1, iteration 3/11" in line for line in process.stdout)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=400)
    assert process.returncode != 0
    assert err.count("the same command with --resume goes on from there") == 1, err
    state = torch.load(task / "b.resume")
    place = state["counters"]["batches"]
    assert (state["counters"]["epoch"], 3 <= place < 11) == (0, True)
    # Saved by the first process alone, the sums are of both.
    assert state["tally"]["images"] == 4 * place

    results = []
    for name, resume in (("b", ["--resume"]), ("straight", [])):
        process = torchrun(options(task, name, *more, *resume, arch="resnet50_w8"))
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
        assert (f"resuming in epoch 1, after iteration {place}" in out) == bool(resume)
        loss = json.loads((task / f"{name}.json").read_text())["train_loss"]
        results.append((loss, torch.load(task / f"{name}.pth")))
    (loss, parameters), (straight_loss, straight) = results
    assert loss == straight_loss
    assert all(torch.equal(parameters[key], value) for key, value in straight.items())


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_killed_process_is_one_line_of_the_other(task, rank):
    process = torchrun(options(task, f"killed{rank}", "--log_interval", 1, "--max_epoch", 50))
    assert any("epoch 1, iteration 3/" in line for line in process.stdout)
    pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    environments = {pid: Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in pids}
    (pid,) = [pid for pid, words in environments.items() if f"RANK={rank}".encode() in words]
    os.kill(int(pid), signal.SIGKILL)
    _, err = process.communicate(timeout=400)
    assert process.returncode != 0
    assert err.count("error: another process of this run was killed or has failed") == 1, err
    assert "Connection closed" not in err


# What others have left in the environment


@pytest.fixture
def environment(monkeypatch):
    """Sets variables; those of torchrun that are not given are not there."""

    def set_all(**values):
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize("more", [{}, {"MASTER_ADDR": "nowhere.invalid", "MASTER_PORT": "1"}])
def test_single_process_trains_alone(environment, more):
    environment(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", **more)
    distributed.start(torch.device("cpu"))
    assert distributed.world_size() == 1
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            ("0", "2"),
            r"^RANK=0 .* without MASTER_ADDR and MASTER_PORT; .*torchrun",
        ),
        (("x", "2"), r"^RANK is 'x' in the environment"),
        (("0", ""), r"^WORLD_SIZE is '' in the environment"),
        (("2", "2", "here"), "with a RANK that is too large"),
    ],
)
def test_several_processes_that_cannot_meet_are_one_line(environment, values, message):
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR")
    more = {"MASTER_PORT": "1"} if values[2:] else {}
    environment(**dict(zip(names, values, strict=False)), LOCAL_RANK="0", **more)
    with pytest.raises(InputError, match=message):
        distributed.start(torch.device("cpu"))


@pytest.mark.parametrize("name", ["meta", "hpu", "privateuseone", "lazy", "xla", "", "nonsense"])
def test_device_that_cannot_compute_is_one_line(name):
    with pytest.raises(InputError, match=rf"^--device {name} cannot be used here: .*; give cpu"):
        choose_device(name)
