"""Long runs, and faults under way: memory, killed processes, full disks, two runs at once."""

import contextlib
import ctypes
import gc
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import drawn_images
import numpy as np
import pytest
import torch
from disks import small_disk
from loops import CPU, run_fit
from torch import nn

import finetune
from console import run
from datasets.images import ImageArray
from datasets.loader import make_loader
from models import build, checkpoint
from safe_io import locked, sha256

ROOT = Path(__file__).resolve().parent.parent
LINUX = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A folder with theta_A as a.pth and images of task B: 12 batches of 20."""
    folder = tmp_path_factory.mktemp("task")
    drawn_images.draw(folder / "b", task="shapes", classes=4, train_per_class=60, val_per_class=10)
    torch.manual_seed(0)
    checkpoint.write(folder / "a.pth", build("resnet50_w8", 4).state_dict())
    return folder


def options(task, out, *more):
    """Command line of a short fine-tuning that writes out/b.pth."""
    paths = ["--data_dir", task / "b", "-a", task / "a.pth", "-b", out / "b.pth"]
    sizes = "--dataset Folder --arch resnet50_w8 --image_size 32 --batch_size 20 --max_epoch 3"
    return [str(item) for item in (*paths, *sizes.split(), *more)]


def tune(task, out, *more):
    """Exit code of finetune.py in this process."""
    return run(lambda: finetune.main(options(task, out, *more)))


@pytest.fixture(scope="module")
def straight(task, tmp_path_factory):
    """SHA-256 of the checkpoint of a run that was left alone."""
    out = tmp_path_factory.mktemp("straight")
    assert tune(task, out, "--num_workers", "0") == 0
    return sha256(out / "b.pth")


@contextlib.contextmanager
def started(task, out, *more, until):
    """finetune.py in a process of its own that has printed `until`; killed at the end."""
    command = [sys.executable, str(ROOT / "finetune.py"), *options(task, out, *more)]
    command += ["--log_interval", "1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        try:
            assert any(until in line for line in process.stdout), process.stderr.read()
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def ended(process, code):
    """The lines on stderr of a process that has to end by itself, with this exit code."""
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return err.splitlines()


def group_is_alive(group):
    """Whether a process of the group runs; one that has ended may still be a zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] not in "ZX":
                return True
    return False


def assert_goes_on(task, out, straight):
    """The interrupted run leaves no lock, and resumed it writes the file of the straight one."""
    with locked(out / "b.pth"):
        pass
    torch.load(out / "b.resume", weights_only=True)
    assert tune(task, out, "--num_workers", "0") == 2  # --resume has to be asked for
    assert tune(task, out, "--num_workers", "0", "--resume") == 0
    assert sha256(out / "b.pth") == straight


def test_second_run_is_refused_and_the_first_saves_at_a_signal(task, tmp_path, straight, capfd):
    """Workers included; the run goes on with another number of them."""
    more = ("--num_workers", "2", "--max_epoch", "3")
    with started(task, tmp_path, *more, until="epoch 2, iteration 2/12") as process:
        os.kill(process.pid, signal.SIGSTOP)  # else it might be over before the second one starts
        for extra in ((), ("--overwrite",), ("--resume",)):
            assert tune(task, tmp_path, *more, *extra) == 2
            (line,) = capfd.readouterr().err.splitlines()
            assert line.startswith(f"error: {tmp_path / 'b.pth'} is being written by process ")
        os.killpg(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGCONT)
        (line,) = ended(process, 128 + signal.SIGTERM)
        assert "the same command with --resume goes on from there" in line
        deadline = time.monotonic() + 60
        while group_is_alive(process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert_goes_on(task, tmp_path, straight)
    out = capfd.readouterr()
    assert "b.resume is of an unfinished run; add --resume to go on" in out.err
    assert "resuming in epoch 2, after iteration" in out.out


@pytest.mark.slow
def test_ctrl_c_saves_like_a_signal(task, tmp_path, straight):
    more = ("--num_workers", "2")
    with started(task, tmp_path, *more, until="epoch 1, iteration 2/12") as process:
        os.killpg(process.pid, signal.SIGINT)
        (line,) = ended(process, 128 + signal.SIGINT)
        assert "the same command with --resume goes on from there" in line
    assert_goes_on(task, tmp_path, straight)


def test_killed_run_goes_on_from_its_last_state(task, tmp_path, straight, capfd):
    more = ("--num_workers", "1", "--save_minutes", "0")
    with started(task, tmp_path, *more, until="epoch 2, iteration 3/12") as process:
        os.killpg(process.pid, signal.SIGKILL)
        assert ended(process, -signal.SIGKILL) == []
    assert_goes_on(task, tmp_path, straight)
    assert "resuming in epoch 2, after iteration" in capfd.readouterr().out


@LINUX
def test_killed_worker_is_one_line(task, tmp_path):
    more = ("--num_workers", "1", "--max_epoch", "1000")
    with started(task, tmp_path, *more, until="iteration 2/12") as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        (line,) = ended(process, 2)
    assert "a process that loads images was killed" in line


class Watched:
    """A loader that calls `watch` for every batch."""

    def __init__(self, loader, watch):
        self.loader, self.watch = loader, watch

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for batch in self.loader:
            self.watch()
            yield batch


@LINUX
@pytest.mark.parametrize(
    ("batches", "epochs", "num_workers"),
    [
        (30, 12, 0),
        pytest.param(130, 10, 2, marks=pytest.mark.slow),
        pytest.param(1300, 1, 2, marks=pytest.mark.slow),
        pytest.param(1300, 1, 0, marks=pytest.mark.slow),
    ],
)
def test_memory_and_open_files_stay_flat(tmp_path, batches, epochs, num_workers):
    """In one long epoch, and over many."""
    pixels = np.zeros((16 * batches, 64, 64, 3), dtype=np.uint8)
    images = ImageArray(pixels, [i % 3 for i in range(len(pixels))], image_size=64)
    few = ImageArray(pixels[:32], [0] * 32, image_size=64)
    both = {"batch_size": 16, "seed": 0, "device": CPU, "num_workers": num_workers}
    memory, files = [], []

    def watch():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        files.append(len(os.listdir("/proc/self/fd")))

    train = Watched(make_loader(images, train=True, **both), watch)
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    )
    # Free memory that the process keeps would hide growth.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    val = make_loader(few, train=False, **both)
    run_fit(model, train, val, tmp_path / "x.pth", epochs=epochs, keep="both")
    total = batches * epochs
    assert len(memory) == total
    # After a third everything is allocated. A batch that stayed would be 0.75 MiB each time, 180
    # and more in all; the allocator takes a block from the system now and then.
    assert memory[-1] - memory[total // 3] < 60, memory[::50]
    # A batch on its way from a worker, or a file being written, is an open file, too; one that
    # stayed open in every epoch would make eight more.
    last = files[2 * total // 3 :]
    assert min(last) < min(files[total // 3 : 2 * total // 3]) + 3, files[::50]


@LINUX
def test_processes_and_files_are_given_back_after_a_run_and_after_an_error(task, tmp_path, capfd):
    more = ("--num_workers", "2", "--max_epoch", "1", "--overwrite")
    children = set(multiprocessing.active_children())  # of a test that failed before
    assert tune(task, tmp_path, *more) == 0
    gc.collect()  # queues of ended workers are closed when they are collected
    before = len(os.listdir("/proc/self/fd"))
    assert set(multiprocessing.active_children()) <= children
    assert tune(task, tmp_path, *more) == 0
    assert tune(task, tmp_path, *more, "--lr", "1e30", "--max_epoch", "3") == 2
    assert "the loss is not finite" in capfd.readouterr().err
    assert set(multiprocessing.active_children()) <= children
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.slow
def test_disk_that_fills_up_costs_nothing_but_the_rest_of_the_run(task, tmp_path, straight):
    """A run's files take 16 MiB of the disk's 24."""
    more = ("--num_workers", "0")
    with small_disk(tmp_path / "disk", 24) as disk:
        with started(task, disk, *more, until="epoch 1/3") as process:
            with open(disk / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))
            (line,) = ended(process, 2)
        assert line.endswith("No space left on device; what was there before is untouched")
        assert not list(disk.glob(".*.tmp"))
        record = json.loads((disk / "b.json").read_text())
        assert record["sha256"] == sha256(disk / "b.pth")
        (disk / "filler").unlink()
        assert_goes_on(task, disk, straight)


@pytest.mark.slow
def test_image_damaged_under_way_is_reported_once_and_counted_in_the_end(task, tmp_path, capfd):
    images = tmp_path / "b"
    shutil.copytree(task / "b", images)
    bad = images / "train" / "disc" / "001.png"
    whole = bad.read_bytes()
    more = ("--data_dir", images, "--max_epoch", "6", "--num_workers")
    with started(task, tmp_path, *more, "2", until="epoch 1, iteration 8/12") as process:
        bad.write_bytes(b"damaged")
        assert any("epoch 4, iteration 4/12" in line for line in process.stdout)
        process.terminate()
        warning, farewell = ended(process, 128 + signal.SIGTERM)
    assert warning == f"warning: cannot read {bad}: not an image of a known format"
    assert farewell.startswith("interrupted in epoch 4")

    # What was read before an interruption counts too.
    bad.write_bytes(whole)
    assert tune(task, tmp_path, *more, "0", "--resume") == 0
    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith("have been written again since: their times differ")
    assert json.loads((tmp_path / "b.json").read_text())["unreadable"] == 1


def test_what_a_killed_run_had_half_written_is_removed(task, tmp_path):
    gone = 2**22 + 1  # above the largest process number of Linux
    killed = [f".b.{ending}.{gone}.tmp" for ending in ("resume", "pth")]
    others = [f".c.pth.{gone}.tmp", f".b.pth.{os.getppid()}.tmp", ".b.pth.backup"]
    for name in killed + others:
        (tmp_path / name).touch()
    assert tune(task, tmp_path, "--num_workers", "0", "--max_epoch", "1") == 0
    hidden = {path.name for path in tmp_path.glob(".*")}
    assert hidden == set(others)


@LINUX
@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("InputError('no memory')", 2),
        pytest.param("Interrupted('stopped', 15)", 128 + 15, marks=pytest.mark.slow),
        pytest.param("RuntimeError('out of memory')", 1, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_ends_early_does_not_wait_for_busy_workers(error, code):
    """Nor for ever after an error that nothing catches, since workers ignore SIGTERM."""
    script = f"""
import sys, time
import torch
from datasets.images import ImageArray
from datasets.loader import make_loader
from console import InputError, Interrupted, run

class Slow(ImageArray):
    def images(self, indices):
        if 0 not in indices:
            time.sleep(600)
        return super().images(indices)

def main():
    images = Slow(torch.zeros(40, 4, 4, 3, dtype=torch.uint8).numpy(), [0] * 40, image_size=4)
    options = dict(batch_size=4, seed=0, train=False, num_workers=4, device="cpu")
    loader = make_loader(images, **options)
    for batch in loader:
        raise {error}

sys.exit(run(main))
"""
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == code
    lines = done.stderr.splitlines()
    assert lines[-1].endswith(error.split("'")[1])
    assert len(lines) == 1 or code == 1, done.stderr
