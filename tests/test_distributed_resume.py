"""Two processes under torchrun that are interrupted: none hangs, and the run goes on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import drawn_images
import pytest
import torch

from models import build, checkpoint

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Images of three classes, and theta_A as a.pth."""
    folder = tmp_path_factory.mktemp("task")
    drawn_images.draw(folder / "images", task="shapes", classes=3, train_per_class=24)
    torch.manual_seed(0)
    checkpoint.write(folder / "a.pth", build("resnet50_w8", 10, image_size=32).state_dict())
    return folder


def started(task, name, *options):
    """finetune.py in two processes, the first of a process group of their own."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", 2),
        *("--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", ROOT / "finetune.py"),
        *("--dataset", "Folder", "--data_dir", task / "images", "--arch", "resnet50_w8"),
        *("--image_size", 32, "--max_epoch", 1, "--batch_size", 8, "--num_workers", 0),
        *("--keep", "last", "--log_interval", 1),
        *("-a", task / "a.pth", "-b", task / f"{name}.pth", *options),
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [str(part) for part in command], start_new_session=True, env=environment, **pipes
    )


def finished(task, name, *options):
    """Record, parameters and what was printed of a run that is left alone."""
    process = started(task, name, *options)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    record = json.loads((task / f"{name}.json").read_text())
    return record, torch.load(task / f"{name}.pth"), out


def test_signal_saves_and_resuming_gives_the_same_numbers(task):
    """A scheduler signals all; torchrun then passes it on to those that have had it already.

    After 30 seconds torchrun would kill.
    """
    process = started(task, "b")
    for line in process.stdout:
        if "epoch 1, iteration 3/9" in line:
            break
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert err.count("the same command with --resume goes on from there") == 1, err
    state = torch.load(task / "b.resume")
    place = state["counters"]["batches"]
    assert (state["counters"]["epoch"], 3 <= place < 9) == (0, True)
    # Saved by the first process alone, the sums are of both.
    assert state["tally"]["images"] == 8 * place

    record, parameters, out = finished(task, "b", "--resume")
    assert f"resuming in epoch 1, after iteration {place}" in out
    straight = finished(task, "straight")
    assert record["train_loss"] == straight[0]["train_loss"]
    assert all(torch.equal(parameters[key], value) for key, value in straight[1].items())
