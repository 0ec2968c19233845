"""No wait is endless: little shared memory, hung processes, named pipes, signals meanwhile."""

import contextlib
import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import drawn_images
import numpy as np
import pytest
import torch
from loops import Batches, random_batches, run_fit, small_network
from PIL import Image

from console import InputError, Interrupted
from datasets import load
from datasets.check import check
from datasets.images import ImageArray, ImageFiles
from datasets.loader import make_loader
from datasets.workers import alive, in_processes, while_waiting
from models import build, checkpoint

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = {"batch_size": 4, "seed": 0, "train": False, "device": "cpu"}
# Run "$@" with so little in /dev/shm ($0); "full": nothing is left, not even for a semaphore.
SMALL = (
    "size=$0; [ $0 = full ] && size=8k; mount -t tmpfs -o size=$size tmpfs /dev/shm || exit 99; "
    "[ $0 = full ] && dd if=/dev/zero of=/dev/shm/filler bs=8k count=1 status=none; exec "
)


def with_little_shared_memory(size, command, *, before='"$@"', timeout=600):
    """What a command does where /dev/shm has a size of its own, as in a container."""
    if not shutil.which("unshare"):
        pytest.skip("no unshare here")
    if subprocess.run(["unshare", "-m", "sh", "-c", SMALL + "true", "1m"]).returncode:
        pytest.skip("/dev/shm cannot be mounted anew here")
    words = ["unshare", "-m", "sh", "-c", SMALL + before, size, *map(str, command)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """300 and 60 images of 224 pixels in three classes, and a network."""
    folder = tmp_path_factory.mktemp("task")
    drawn_images.draw(
        folder / "b", classes=3, train_per_class=100, val_per_class=20, size=224, task="shapes"
    )
    torch.manual_seed(0)
    checkpoint.write(folder / "a.pth", build("resnet50_w8", 10).state_dict())
    return folder


def array(count=40, size=8):
    return ImageArray(np.zeros((count, size, size, 3), np.uint8), range(count), image_size=size)


# Shared memory, temporary folders, open files

READ = """
import sys
import torch
from console import run
from datasets.loader import make_loader
from datasets.images import ImageArray

def main():
    pixels = torch.randint(256, (300, 96, 96, 3), dtype=torch.uint8).numpy()
    images = ImageArray(pixels, range(300), image_size=96)
    options = dict(batch_size=128, seed=0, device="cpu")
    for train in (True, False):
        ours, theirs = (
            list(make_loader(images, train=train, num_workers=n, **options))
            for n in (int(sys.argv[1]), 0)
        )
        assert len(ours) == len(theirs) == 3
        for a, b in zip(ours, theirs):
            assert all(map(torch.equal, a, b))
    print("the same")

sys.exit(run(main))
"""


@pytest.mark.parametrize(
    ("size", "workers"), [pytest.param("64m", 8, marks=pytest.mark.slow), ("full", 2)]
)
def test_batches_need_no_shared_memory_of_the_system(size, workers):
    done = with_little_shared_memory(size, [sys.executable, "-c", READ, workers])
    assert (done.returncode, done.stdout, done.stderr) == (0, "the same\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(("size", "workers"), [("64m", 2), ("64m", 8), ("1m", 2), ("1m", 8)])
def test_training_and_evaluation_in_a_container(task, tmp_path, size, workers):
    results = []
    for number, (shm, n) in enumerate(((size, workers), ("1g", 0))):
        data = ("--dataset", "Folder", "--data_dir", task / "b", "--batch_size", 128)
        file = tmp_path / f"{number}.pth"
        tune = ("finetune.py", *data, "--arch", "resnet50_w8", "-a", task / "a.pth", "-b", file)
        for words in ((*tune, "--max_epoch", 1), ("evaluate.py", *data, "-b", file)):
            done = with_little_shared_memory(shm, [sys.executable, *words, "--num_workers", n])
            assert done.returncode == 0, done.stderr
        results.append((file.read_bytes(), done.stdout.split(": ")[1]))
    assert results[0] == results[1]


@pytest.mark.slow
def test_long_name_of_the_temporary_folder_does_no_harm(tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    environment = {**os.environ, "TMPDIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", READ, "2"],
        **{"cwd": ROOT, "env": environment, "capture_output": True, "text": True, "timeout": 300},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "the same\n", "")


@pytest.mark.parametrize("command", ["loader", "check"])
def test_image_is_not_blamed_for_too_few_open_files(command, tmp_path, monkeypatch):
    for name in ("train/a/0", "train/b/0", "val/a/0", "val/b/0"):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)

    opened = os.open

    def refuse(path, *options):
        if str(path).endswith(".png'"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, *options)

    def read():
        if command == "check":
            check("Folder", tmp_path, workers=0)
        else:
            train, _, _ = load("Folder", tmp_path, image_size=8)
            list(make_loader(train, num_workers=0, **OPTIONS))

    monkeypatch.setattr("datasets.images.os.open", refuse)
    with pytest.raises(InputError, match=r"0\.png: Too many open files .*ulimit -n.*; give fewer"):
        read()


def test_processes_of_validation_are_there_before_the_first_epoch(tmp_path):
    order = []
    train, val = (Batches(random_batches(), on_epoch=lambda _: order.append("epoch")) for _ in "ab")
    val.start = lambda: order.append("start")
    run_fit(small_network(), train, val, tmp_path / "x.pth")
    assert order[:2] == ["start", "epoch"]


def test_too_few_open_files_are_one_line_that_names_the_limit():
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    now = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (now + 9, limits[1]))
    try:
        with pytest.raises(
            InputError, match=rf"cannot start \d .*limit of {now + 9}.*ulimit -n.*--num_workers$"
        ):
            list(make_loader(array(), num_workers=8, **OPTIONS))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(list(make_loader(array(), num_workers=2, **OPTIONS))) == 10


# Processes and disks that hang


class Hanging(ImageArray):
    """Does not give image 9 in the time that a process may be silent, nor long after it."""

    def images(self, indices):
        if 9 in indices:
            time.sleep(20)
        return super().images(indices)


class Slow(ImageArray):
    """Takes longer for every batch than a process may be silent, but not for an image."""

    def images(self, indices):
        return [image for index in indices for image in self.slowly(index)]

    def slowly(self, index):
        time.sleep(0.7)
        return super().images([index])


def hang(chunk):
    time.sleep(20)
    return chunk


@pytest.mark.parametrize("num_workers", [1, 3])
def test_process_that_hangs_is_one_line_and_leaves_no_process(num_workers):
    images = Hanging(array().pixels.numpy(), range(40), image_size=8)
    loader = make_loader(images, num_workers=num_workers, **OPTIONS)
    loader.patience = 1.5
    batches = iter(loader)
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(InputError, match=r"^no image was read for 1.5 seconds: .*--num_workers 0$"):
        next(batches)


def test_stopped_process_is_noticed_too():
    others = set(multiprocessing.active_children())
    loader = make_loader(array(400), num_workers=2, **OPTIONS)
    loader.patience = 1.5
    batches = iter(loader)
    next(batches)
    (first, _) = set(multiprocessing.active_children()) - others
    os.kill(first.pid, signal.SIGSTOP)
    # Without a watch the process would be waited for until then, and the test fail.
    going_on = threading.Timer(20, os.kill, (first.pid, signal.SIGCONT))
    going_on.start()
    with pytest.raises(InputError, match=r"^no image was read"):
        list(batches)
    going_on.cancel()


@pytest.mark.slow
def test_slow_disk_that_moves_is_no_fault():
    loader = make_loader(
        Slow(array(8).pixels.numpy(), range(8), image_size=8), num_workers=1, **OPTIONS
    )
    loader.patience = 2
    assert len(list(loader)) == 2


def test_commands_on_data_sets_notice_it_too():
    with pytest.raises(InputError, match=r"^no image was read for 1 seconds: .*--workers 0$"):
        list(in_processes(hang, range(3), workers=2, patience=1))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_named_pipe_among_the_images_is_unreadable_and_never_waited_for(tmp_path, num_workers):
    paths = [tmp_path / f"{i}.png" for i in range(200)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    paths[3].unlink()
    os.mkfifo(paths[3])
    images = ImageFiles(list(map(str, paths)), [0] * 200, image_size=8)
    loader = make_loader(images, **{**OPTIONS, "batch_size": 200}, num_workers=num_workers)
    ((_, labels),) = loader
    assert len(labels) == 199
    assert loader.unreadable == [str(paths[3])]


# Signals


@pytest.mark.parametrize("num_workers", [0, 1])
def test_waiting_ends_when_the_hook_raises(num_workers):
    def stop():
        if time.monotonic() > end:
            raise Interrupted("stopped", signal.SIGTERM)

    images = Slow(array().pixels.numpy(), range(40), image_size=8)
    loader = make_loader(images, num_workers=num_workers, **{**OPTIONS, "batch_size": 40})
    started = time.monotonic()
    end = started + 1
    with while_waiting(stop), pytest.raises(Interrupted):
        next(iter(loader))
    assert time.monotonic() - started < 25  # of the 28 that the batch takes
    alive()  # the hook is gone


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGHUP,
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
        ),
    ],
)
def test_signal_ends_a_run_whose_processes_hang(tmp_path, number):
    """With the state of the last step, and within seconds."""
    drawn_images.draw(tmp_path / "b", classes=2, train_per_class=400, val_per_class=2)
    torch.manual_seed(0)
    checkpoint.write(tmp_path / "a.pth", build("resnet50_w8", 2).state_dict())
    words = "--dataset Folder --arch resnet50_w8 --image_size 32 --batch_size 4 --num_workers 2"
    words += f" --data_dir {tmp_path}/b -a {tmp_path}/a.pth -b {tmp_path}/b.pth --log_interval 1"
    command = [sys.executable, str(ROOT / "finetune.py"), *words.split()]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        try:
            assert any("iteration 2/" in line for line in process.stdout), process.stderr.read()
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for child in map(int, children):
                os.kill(child, signal.SIGSTOP)
            time.sleep(3)  # until what had been read is used up
            os.killpg(process.pid, number)
            started = time.monotonic()
            _, err = process.communicate(timeout=60)
            assert time.monotonic() - started < 30
            assert process.returncode == 128 + number, err
            (line,) = [line for line in err.splitlines() if "warning" not in line]
            assert "the same command with --resume goes on from there" in line
            assert torch.load(tmp_path / "b.resume")["counters"]["step"] >= 2
            assert not [child for child in children if Path(f"/proc/{child}/fd/0").exists()]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
