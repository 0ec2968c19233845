"""Long runs and faults under way: memory, files and processes, full disks, two runs at once."""

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
from functools import partial
from pathlib import Path

import drawn_images
import numpy as np
import pytest
import torch
from test_training import CPU, run_fit, small_network

import finetune
from console import run
from datasets.images import ImageArray
from datasets.loader import Loader, make_loader
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
    sizes = "--dataset Folder --arch resnet50_w8 --image_size 32 --batch_size 20".split()
    return [str(item) for item in (*paths, *sizes, *more)]


def tune(task, out, *more):
    """Exit code of finetune.py in this process."""
    return run(lambda: finetune.main(options(task, out, *more)))


@contextlib.contextmanager
def started(task, out, *more, until):
    """finetune.py in a process of its own that has printed `until`; killed at the end."""
    command = [sys.executable, str(ROOT / "finetune.py"), *options(task, out, *more)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        try:
            assert any(until in line for line in process.stdout), process.stderr.read()
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def assert_one_error_line(process, message):
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    assert message in err


def temporary_files(folder):
    return list(folder.glob(".*.tmp"))


@LINUX
@pytest.mark.parametrize(
    ("iterations", "epochs", "num_workers"), [(1300, 1, 0), (1300, 1, 2), (130, 10, 2)]
)
def test_memory_and_open_files_stay_flat_over_a_thousand_iterations(
    tmp_path, monkeypatch, iterations, epochs, num_workers
):
    """In one long epoch, and over many."""
    pixels = np.zeros((4 * iterations, 4, 4, 3), dtype=np.uint8)
    images = ImageArray(pixels, [i % 3 for i in range(len(pixels))], image_size=4)
    loader = partial(make_loader, images, batch_size=4, seed=0, device=CPU)
    train = loader(train=True, num_workers=num_workers)
    val = loader(train=False, num_workers=num_workers)
    memory, files = [], []

    def watch(self, batch):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        files.append(len(os.listdir("/proc/self/fd")))
        return 1.0

    # Called once in every iteration.
    monkeypatch.setattr(Loader, "weight", watch)
    # Free memory that the process keeps would hide growth.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    run_fit(small_network(), train, val, tmp_path / "x.pth", epochs=epochs, keep="both")
    assert len(memory) == 1300
    # After 280 everything is allocated and all workers run. What leaks grows in both halves; the
    # allocator takes a block from the system now and then.
    assert min(memory[790] - memory[280], memory[-1] - memory[790]) < 1, memory[::50]
    # A batch on its way from a worker, or a file that is being written, is an open file, too; one
    # that stayed open in every epoch would make eight more.
    assert min(files[-200:]) < min(files[200:400]) + 4, files[::50]


@LINUX
def test_processes_and_files_are_given_back_after_a_run_and_after_an_error(task, tmp_path, capfd):
    more = ("--num_workers", "2", "--max_epoch", "1")
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


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 24 MiB, where a run's files take 16."""
    if os.name != "posix" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root, to mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_disk_that_fills_up_costs_nothing_but_the_rest_of_the_run(task, tmp_path, small_disk):
    more = ("--num_workers", "0", "--max_epoch", "4")
    with started(task, small_disk, *more, until="epoch 1/4") as process:
        with open(small_disk / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        assert_one_error_line(process, "No space left on device; what was there before is")
    assert not temporary_files(small_disk)
    with locked(small_disk / "b.pth"):
        pass
    torch.load(small_disk / "b.resume", weights_only=True)
    record = json.loads((small_disk / "b.json").read_text())
    assert record["sha256"] == sha256(small_disk / "b.pth")

    (small_disk / "filler").unlink()
    assert tune(task, small_disk, *more, "--resume") == 0
    assert tune(task, tmp_path, *more) == 0
    assert sha256(small_disk / "b.pth") == sha256(tmp_path / "b.pth")


def test_output_folder_removed_under_way_is_one_line(task, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    more = ("--num_workers", "1", "--max_epoch", "100", "--log_interval", "1")
    with started(task, out, *more, until="iteration 3/12") as process:
        shutil.rmtree(out)
        assert_one_error_line(process, "No such file or directory")
    assert not out.exists()


def test_image_damaged_under_way_is_reported_once_and_counted_in_the_end(task, tmp_path, capfd):
    images = tmp_path / "b"
    shutil.copytree(task / "b", images)
    bad = images / "train" / "disc" / "001.png"
    whole = bad.read_bytes()
    more = ("--data_dir", images, "--max_epoch", "6", "--log_interval", "4", "--num_workers")
    with started(task, tmp_path, *more, "2", until="epoch 1, iteration 8/12") as process:
        bad.write_bytes(b"damaged")
        assert any("epoch 4, iteration 4/12" in line for line in process.stdout)
        process.terminate()
        _, err = process.communicate(timeout=60)
    warning, farewell = err.splitlines()
    assert warning == f"warning: cannot read {bad}: not an image of a known format"
    assert farewell.startswith("interrupted in epoch 4")

    # What was read before an interruption counts too.
    bad.write_bytes(whole)
    assert tune(task, tmp_path, *more, "0", "--resume") == 0
    assert capfd.readouterr().err == ""
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
def test_error_that_nothing_catches_ends_the_process(tmp_path):
    """Such as a GPU's memory running out, while workers ignore the SIGTERM that ends them."""
    code = (
        "import torch; from datasets.images import ImageArray; import datasets.loader as loader\n"
        "images = ImageArray(torch.zeros(40, 4, 4, 3, dtype=torch.uint8).numpy(), [0] * 40,"
        " image_size=4)\n"
        "options = dict(batch_size=4, seed=0, train=True, num_workers=2, device='cpu')\n"
        "for batch in loader.make_loader(images, **options): raise RuntimeError('out of memory')\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "RuntimeError: out of memory"


@LINUX
@pytest.mark.parametrize("error", ["InputError('no memory')", "Interrupted('stopped', 15)"])
def test_a_run_that_ends_early_does_not_wait_for_busy_workers(error):
    """torch would wait five seconds for each, more than a scheduler may give."""
    code = (
        "import sys, time\n"
        "import torch\n"
        "from datasets.images import ImageArray\n"
        "from datasets.loader import make_loader\n"
        "from console import InputError, Interrupted, run\n"
        "class Slow(ImageArray):\n"
        "    def images(self, indices):\n"
        "        if 0 not in indices:\n"
        "            time.sleep(60)\n"
        "        return super().images(indices)\n"
        "pixels = torch.zeros(40, 4, 4, 3, dtype=torch.uint8).numpy()\n"
        "options = dict(batch_size=4, seed=0, train=False, num_workers=4, device='cpu')\n"
        "def main():\n"
        "    loader = make_loader(Slow(pixels, [0] * 40, image_size=4), **options)\n"
        "    for batch in loader:\n"
        f"        raise {error}\n"
        "start = time.monotonic()\n"
        "code = run(main)\n"
        "print(time.monotonic() - start)\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == (2 if "Input" in error else 128 + 15)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert float(done.stdout) < 10  # 20 and more where it waits


def test_second_run_of_the_same_output_is_refused_and_the_first_unharmed(task, tmp_path, capfd):
    more = ("--num_workers", "0", "--max_epoch", "6")
    with started(task, tmp_path, *more, "--log_interval", "1", until="iteration 2/") as process:
        for extra in ((), ("--overwrite",), ("--resume",)):
            assert tune(task, tmp_path, *more, *extra) == 2
            err = capfd.readouterr().err
            assert err.startswith(f"error: {tmp_path / 'b.pth'} is being written by process ")
            assert len(err.splitlines()) == 1
        assert process.poll() is None, "the first run was over too early to tell"
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    (tmp_path / "again").mkdir()
    assert tune(task, tmp_path / "again", *more) == 0
    assert sha256(tmp_path / "again" / "b.pth") == sha256(tmp_path / "b.pth")
