"""What X.json beside a file settles: image size, class names, and the options of the same run."""

import json
import re
import shutil

import drawn_images
import pytest
import torch

import evaluate
import finetune
import pretrain_on_ImageNet
from console import run
from findings import __main__ as findings
from models import build, checkpoint
from safe_io import sha256

SIZE = 40  # the default of no data set


def call(module, *words):
    """Exit code of a script's main, in this process."""
    return run(lambda: module.main([str(word) for word in words]))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Class folders bar, cross, diamond."""
    folder = tmp_path_factory.mktemp("data")
    return drawn_images.draw(folder, task="shapes", classes=3, train_per_class=20, val_per_class=8)


def task(data):
    return ("--dataset", "Folder", "--data_dir", data, "--num_workers", 0, "--device", "cpu")


def tune(data, out, *options, size=SIZE):
    words = ("-a", out / "a.pth", "-b", out / "b.pth", "--arch", "resnet50_w8", "--max_epoch", 1)
    return call(finetune, *task(data), *words, "--image_size", size, "--batch_size", 20, *options)


@pytest.fixture(scope="module")
def tuned(data, tmp_path_factory):
    """r.pth, a.pth of step 1 at 32 pixels a side, b.pth of step 2 at SIZE, with their records."""
    out = tmp_path_factory.mktemp("tuned")
    words = ("--data_dir", data, "--num_workers", 0, "--device", "cpu", "--image_size", 32)
    words += ("-r", out / "r.pth", "-a", out / "a.pth", "--arch", "resnet50_w8", "--max_epoch", 1)
    assert call(pretrain_on_ImageNet, *words, "--batch_size", 20) == 0
    assert tune(data, out) == 0
    return out


@pytest.fixture
def copy(tuned, tmp_path):
    """The same files in a folder of the test's own."""
    return shutil.copytree(tuned, tmp_path / "copy")


def record_of(path):
    return json.loads(path.with_suffix(".json").read_text())


def change(path, **entries):
    """Write entries into X.json."""
    file = path.with_suffix(".json")
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def assert_refused(code, capsys, message):
    err = capsys.readouterr().err
    assert code == 2
    assert re.search(message, err), err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")


# Image size


def test_evaluation_is_at_the_size_of_the_training(data, copy, tmp_path, capsys):
    record = record_of(copy / "b.pth")
    assert record["args"]["image_size"] == SIZE
    right = f"accuracy {record['val_acc']:.2f} % of 24 images, loss"
    (tmp_path / "link.pth").symlink_to(copy / "b.pth")
    for path in (copy / "b.pth", tmp_path / "link.pth"):
        assert call(evaluate, *task(data), "-b", path) == 0
        printed = capsys.readouterr()
        assert right in printed.out
        assert f", {SIZE} pixels a side" in printed.out
        assert printed.err == ""


def test_another_size_than_that_of_the_training_is_warned_of(data, copy, capsys):
    for size, warned in ((SIZE, False), (64, True)):
        assert call(evaluate, *task(data), "-b", copy / "b.pth", "--image_size", size) == 0
        printed = capsys.readouterr()
        assert f", {size} pixels a side" in printed.out
        message = f"b.pth was trained at {SIZE} pixels a side, as b.json says; at --image_size 64"
        assert (message in printed.err) == warned


@pytest.mark.parametrize("size", [None, "40", True, -1, [40]])
def test_size_that_is_none_is_not_taken(data, copy, capsys, size):
    args = record_of(copy / "b.pth")["args"] | {"image_size": size}
    change(copy / "b.pth", args=args)
    assert call(evaluate, *task(data), "-b", copy / "b.pth", "--max_samples", 9) == 0
    printed = capsys.readouterr()
    assert ", 224 pixels a side" in printed.out
    assert ("b.json is not the record of a training run" in printed.err) == (size is not None)


def test_record_of_another_file_settles_nothing(data, copy, capsys):
    theta = torch.load(copy / "b.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in theta.items()}}, copy / "b.pth")
    change(copy / "b.pth", classes=["x", "y", "z"])
    assert call(evaluate, *task(data), "-b", copy / "b.pth") == 0
    printed = capsys.readouterr()
    assert ", 224 pixels a side" in printed.out
    assert "b.json is the record of another file than" in printed.err
    # With the sum of the container the record speaks of it.
    change(copy / "b.pth", sha256=sha256(copy / "b.pth"), classes=["bar", "cross", "diamond"])
    evaluate.read_record.cache_clear()
    assert call(evaluate, *task(data), "-b", copy / "b.pth") == 0
    assert f"accuracy {record_of(copy / 'b.pth')['val_acc']:.2f} %" in capsys.readouterr().out


def test_fine_tuning_keeps_its_own_size_and_says_that_of_theta_a(data, copy, capsys):
    for size in (32, SIZE):
        assert tune(data, copy, "-b", copy / f"b{size}.pth", "--max_steps", 1, size=size) == 0
        out = capsys.readouterr().out
        assert f"a.pth was trained at 32 pixels a side; this run takes {size}" in out
        assert record_of(copy / f"b{size}.pth")["args"]["image_size"] == size
    (copy / "a.json").unlink()
    evaluate.read_record.cache_clear()
    assert tune(data, copy, "-b", copy / "c.pth", "--max_steps", 1) == 0
    assert "was trained at" not in capsys.readouterr().out


def test_reset_is_at_the_size_and_of_the_classes_of_the_training(data, copy, capsys):
    words = ["reset", *task(data), "-r", copy / "r.pth", "-a", copy / "a.pth"]
    words = [*map(str, words), "-b", str(copy / "b.pth")]
    assert run(lambda: findings.main(words)) == 0
    accuracy = record_of(copy / "b.pth")["val_acc"]
    assert f"b.pth: accuracy {accuracy:.2f} % of 24 images" in capsys.readouterr().out
    change(copy / "b.pth", classes=["cross", "bar", "diamond"])
    evaluate.read_record.cache_clear()
    assert_refused(run(lambda: findings.main(words)), capsys, "in another order: label 0 is cross")


def test_factors_are_at_the_size_of_theta_a(tmp_path, capsys):
    data = tmp_path / "data"
    drawn_images.draw(data, classes=2, train_per_class=20, val_per_class=20)
    torch.manual_seed(0)
    checkpoint.write(tmp_path / "a.pth", build("resnet50_w8", 2).state_dict())
    record = {"steps": 1, "epochs": 1, "kept": "last", "kept_epoch": 1, "train_loss": 1.0}
    record |= {"sha256": sha256(tmp_path / "a.pth"), "args": {"image_size": SIZE}}
    (tmp_path / "a.json").write_text(json.dumps(record))
    words = ["factors", *task(data), "-a", tmp_path / "a.pth", "--source", "Folder"]
    words += ["--source_dir", data, "--csv", tmp_path / "f.csv"]
    assert run(lambda: findings.main(list(map(str, words)))) == 0
    printed = capsys.readouterr()
    assert f"source Folder:data, {SIZE} pixels a side" in printed.out
    assert printed.err == ""
    words += ["--image_size", 32]
    assert run(lambda: findings.main(list(map(str, words)))) == 0
    printed = capsys.readouterr()
    assert "source Folder:data, 32 pixels a side" in printed.out
    assert f"a.pth was trained at {SIZE} pixels a side" in printed.err


# Classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cross", "bar", "diamond"], "classes, the same in another order: label 0 is cross in b"),
        (["bar", "cross", "ring"], r"other classes: label 2 is ring in b\.json and diamond in Fol"),
        (["Bar", "cross", "diamond"], r"other classes: label 0 is Bar in b\.json and bar in Fold"),
    ],
)
def test_other_classes_than_those_of_the_training_are_an_error(data, copy, capsys, names, message):
    change(copy / "b.pth", classes=names)
    code = call(evaluate, *task(data), "-b", copy / "b.pth")
    assert_refused(code, capsys, message)


def test_accents_composed_in_another_way_are_the_same_class(copy, tmp_path, capsys):
    folder = drawn_images.draw(tmp_path / "data", task="shapes", classes=3, val_per_class=3)
    for split in ("train", "val"):  # as macOS writes it
        (folder / split / "cross").rename(folder / split / "ka\u0308fer")
    change(copy / "b.pth", classes=["bar", "diamond", "k\u00e4fer"])
    assert call(evaluate, *task(folder), "-b", copy / "b.pth") == 0
    capsys.readouterr()


def test_more_classes_than_those_of_the_training_are_an_error(copy, tmp_path, capsys):
    more = drawn_images.draw(tmp_path / "more", task="shapes", classes=4, val_per_class=3)
    code = call(evaluate, *task(more), "-b", copy / "b.pth")
    message = "a classifier of 3 classes, but Folder in .* has 4; --max_classes 3 leaves those"
    assert_refused(code, capsys, message)
    assert call(evaluate, *task(more), "-b", copy / "b.pth", "--max_classes", 3) == 0
