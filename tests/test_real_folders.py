"""Real images in class folders, where they lie beside the repository: counts, and one epoch."""

import json
import subprocess
from pathlib import Path

import pytest

import finetune
import pretrain_on_ImageNet
from console import run
from datasets import find

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """CIFAR-10 and Tiny-ImageNet at 32 x 32 pixels, as JPEG files, unpacked."""
    unpacked = {}
    for name, archive in (
        ("CIFAR-10", DATA / "cifar10-jpeg.tar.xz"),
        ("ImageNet", DATA / "tiny-imagenet32.tar.xz"),
    ):
        if not archive.is_file():
            pytest.skip(f"needs {archive.name}")
        folder = tmp_path_factory.mktemp(name)
        subprocess.run(["tar", "-xf", archive, "-C", folder], check=True)
        unpacked[name] = next(path.parent for path in folder.rglob("train"))
    return unpacked


@pytest.mark.parametrize(
    ("name", "counts"), [("CIFAR-10", (10, 50000, 10000)), ("ImageNet", (200, 100000, 10000))]
)
def test_all_images_are_found(name, counts, folders, capsys):
    found = find(name, folders[name])
    assert (len(found.classes), len(found.train.labels), len(found.val.labels)) == counts
    assert capsys.readouterr().err == ""


def test_pre_training_and_fine_tuning_take_a_step(folders, tmp_path):
    small = ["--arch", "resnet50_w8", "--batch_size", "50", "--max_steps", "4", "--keep", "last"]
    a, b = str(tmp_path / "a.pth"), str(tmp_path / "b.pth")
    images = ["--data_dir", str(folders["ImageNet"]), "--image_size", "32"]
    words = [*images, *small, "-r", str(tmp_path / "r.pth"), "-a", a]
    assert run(lambda: pretrain_on_ImageNet.main(words)) == 0
    words = ["--data_dir", str(folders["CIFAR-10"]), "--max_samples", "200", *small]
    assert run(lambda: finetune.main([*words, "-a", a, "-b", b])) == 0
    for name, counts in (("a", (100000, 10000, 200)), ("b", (200, 10000, 10))):
        record = json.loads((tmp_path / f"{name}.json").read_text())
        found = (record["train_images"], record["val_images"], len(record["classes"]))
        assert found == counts
        assert record["unreadable"] == 0
