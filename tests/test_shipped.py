"""The shipped checkpoints: whole, loadable, as accurate as documented, with the printed numbers."""

import json
import re
import shutil
import tarfile
from pathlib import Path

import compare_with_readme
import pytest
import torch

import cal_transferability
import evaluate
from console import run
from figures import results
from measurement import inputs
from models import build
from safe_io import sha256

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "ckpt" / "shipped"
NAMES = [
    "cifar10_500_model.pth",
    "cifar10_model.pth",
    "random_init_model.pth",
    "tiny_imagenet_model.pth",
]
# CIFAR-10 as JPEG files, for the accuracies, which were measured on them.
ARCHIVE = ROOT.parent / "shared" / "data" / "cifar10-jpeg.tar.xz"


def test_all_four_are_listed_with_their_sums():
    lines = (SHIPPED / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in map(str.split, lines)}
    assert sorted(sums) == NAMES
    for name, digest in sums.items():
        assert sha256(SHIPPED / name) == digest
    inputs.check_shipped()


@pytest.mark.parametrize("name", NAMES)
def test_file_loads_into_its_network(name):
    state_dict = torch.load(SHIPPED / name)
    classes = len(state_dict["fc.bias"])
    assert classes == (10 if name.startswith("cifar10") else 200)
    build("resnet50_w16", classes).load_state_dict(state_dict)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("random")])
def test_record_is_of_the_file_and_of_its_parent(name):
    record = json.loads((SHIPPED / name).with_suffix(".json").read_text())
    assert record["sha256"] == sha256(SHIPPED / name)
    parent = "tiny_imagenet_model.pth" if name.startswith("cifar10") else "random_init_model.pth"
    assert record["parent_sha256"] == sha256(SHIPPED / parent)
    assert record["finished"]
    with open((SHIPPED / name).with_suffix(".csv")) as file:
        assert len(file.readlines()) == record["epochs"] + 1


def test_step_3_without_files_prints_the_values_of_the_readme(capsys):
    assert run(lambda: cal_transferability.main(["--no_plot"])) == 0
    printed = capsys.readouterr().out
    assert len(compare_with_readme.values(printed)) == 10
    assert compare_with_readme.main(printed) == 0


def test_other_values_than_the_readme_are_told(capsys):
    assert compare_with_readme.main("Transferability: 1.00 (mean over 17 layers)") == 1
    assert "NOT the values of the README" in capsys.readouterr().err


def test_damaged_or_missing_file_is_named_with_how_to_restore_it(tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(SHIPPED, tmp_path / "shipped")
    monkeypatch.setattr(inputs, "SHIPPED", copy)
    monkeypatch.chdir(tmp_path)
    name = "cifar10_model.pth"
    with open(copy / name, "r+b") as file:
        file.seek(1000)
        file.write(b"\x00\x01")
    assert run(lambda: cal_transferability.main([])) == 2
    err = capsys.readouterr().err
    assert err == (
        f"error: {copy / name} is damaged or another file (SHA-256); restore it: git checkout -- "
        f"ckpt/shipped/{name}\n"
    )
    (copy / name).unlink()
    assert run(lambda: cal_transferability.main([])) == 2
    assert f"{name} is missing; restore it: git checkout" in capsys.readouterr().err
    (copy / "SHA256SUMS").unlink()
    assert run(lambda: cal_transferability.main([])) == 2
    assert "SHA256SUMS is missing; restore it: git checkout" in capsys.readouterr().err


def test_table_and_profiles_of_the_page_are_those_of_the_logs(tmp_path, capsys):
    assert run(lambda: results.main(["--plot", str(tmp_path / "results.png")])) == 0
    *lines, written = capsys.readouterr().out.splitlines()
    assert Path(written).read_bytes().startswith(b"\x89PNG")
    page = (ROOT / "ckpt/README.md").read_text()
    assert len(lines) == 2 + 14 + 4
    for line in lines:
        assert line in page, line


def test_logs_that_are_not_there_are_one_line(tmp_path, capsys):
    assert run(lambda: results.main([str(tmp_path)])) == 2
    assert "results.json" in capsys.readouterr().err


@pytest.fixture(scope="module")
def cifar(request, tmp_path_factory):
    """The folder of CIFAR-10: of --data_dir, or unpacked."""
    given = request.config.getoption("--data_dir")
    if given:
        return Path(given)
    if not ARCHIVE.is_file():
        pytest.skip("needs CIFAR-10: pytest --data_dir DIR")
    folder = tmp_path_factory.mktemp("cifar")
    with tarfile.open(ARCHIVE) as archive:
        members = [
            member
            for member in archive
            # Of the training images, which are not looked at, one a class.
            if "test/" in member.name or re.search(r"train/\w+/0000\.jpg", member.name)
        ]
        archive.extractall(folder, members, filter="data")
    return next(path.parent for path in folder.rglob("test"))


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("cifar10")])
def test_accuracy_is_the_documented_one(name, cifar, capsys):
    words = ["--data_dir", str(cifar), "-b", str(SHIPPED / name), "--num_workers", "0"]
    assert run(lambda: evaluate.main(words)) == 0
    accuracy = re.search(r"accuracy ([\d.]+) % of 10000 images", capsys.readouterr().out)[1]
    record = json.loads((SHIPPED / name).with_suffix(".json").read_text())
    assert float(accuracy) == pytest.approx(record["val_acc"], abs=0.05)
    row = next(x for x in (ROOT / "ckpt/README.md").read_text().splitlines() if f"`{name}` |" in x)
    assert f"| {accuracy} of 10,000 images |" in row
