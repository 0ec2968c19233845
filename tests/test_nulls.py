"""Fine-tuning with one thing taken away: labels, features, a short last batch; layers set back."""

import csv
import json

import drawn_images
import pytest
import torch

import finetune
from console import run
from findings.__main__ import main as findings
from models import build
from safe_io import sha256

OPTIONS = "--dataset Folder --arch resnet50_w8 --image_size 32 --num_workers 0 --max_epoch 2"


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """data with 90 training and 20 validation images in two classes; theta_r and theta_A."""
    folder = tmp_path_factory.mktemp("task")
    sizes = {"classes": 2, "train_per_class": 45, "val_per_class": 10}
    drawn_images.draw(folder / "data", task="shapes", **sizes)
    torch.manual_seed(0)
    theta_r = build("resnet50_w8", 10).state_dict()
    torch.save(theta_r, folder / "r.pth")
    moved = {k: v + 0.01 if v.is_floating_point() else v for k, v in theta_r.items()}
    torch.save(moved, folder / "a.pth")
    return folder


def tune(task, out, *more):
    words = [*OPTIONS.split(), "--data_dir", task / "data", "-a", task / "a.pth", "-b", out, *more]
    return run(lambda: finetune.main(list(map(str, words))))


def record_of(path):
    return json.loads(path.with_suffix(".json").read_text())


# Labels


def test_random_labels_train_on_the_same_images_and_validate_nothing(task, tmp_path, capsys):
    assert tune(task, tmp_path / "true.pth", "--keep", "last", "--batch_size", 90) == 0
    random = ("--labels", "random", "--keep", "last", "--batch_size", 90)
    assert tune(task, tmp_path / "b.pth", *random) == 0
    assert tune(task, tmp_path / "again.pth", *random) == 0
    assert "val loss" not in capsys.readouterr().out.splitlines()[-2]
    record = record_of(tmp_path / "b.pth")
    assert (record["train_images"], record["args"]["labels"]) == (90, "random")
    nothing = ("best_epoch", "best_val_acc", "last_val_acc", "val_acc")
    assert [record[key] for key in nothing] == [None] * 4
    rows = list(csv.DictReader((tmp_path / "b.csv").open()))
    assert [(row["val_loss"], row["val_acc"]) for row in rows] == [("", "")] * 2
    assert sha256(tmp_path / "b.pth") == sha256(tmp_path / "again.pth")
    assert sha256(tmp_path / "b.pth") != sha256(tmp_path / "true.pth")


def test_labels_are_permuted_by_the_seed_and_keep_their_numbers(task):
    from datasets import load

    def labels(seed, random):
        train, val, _ = load("Folder", task / "data", random_labels=random, seed=seed)
        return train.labels.tolist(), val.labels.tolist()

    true, val = labels(0, False)
    first, second = labels(0, True), labels(1, True)
    assert first == labels(0, True)
    assert first[0] != second[0]
    assert true not in (first[0], second[0])
    assert sorted(first[0]) == sorted(true)
    assert first[1] == val


@pytest.mark.parametrize("keep", ["best", "both"])
def test_random_labels_need_the_last_epoch(keep, task, tmp_path, capsys):
    assert tune(task, tmp_path / "b.pth", "--labels", "random", "--keep", keep) == 2
    assert "so that no epoch is best; add --keep last" in capsys.readouterr().err


# The last batch


@pytest.mark.parametrize(
    ("batch_size", "more", "steps", "last_batch", "warned"),
    [
        (40, (), 6, 10, True),
        (40, ("--drop_last",), 4, 40, False),
        (45, (), 4, 45, False),
        (50, (), 4, 40, False),
        (89, (), 2, 89, False),  # of a single image, which is dropped in any case
    ],
)
def test_short_last_batch_is_recorded_and_warned_of(
    batch_size, more, steps, last_batch, warned, task, tmp_path, capsys
):
    assert tune(task, tmp_path / "b.pth", "--batch_size", batch_size, *more) == 0
    record = record_of(tmp_path / "b.pth")
    assert (record["steps"], record["last_batch"], record["processes"]) == (steps, last_batch, 1)
    message = f"the last batch of every epoch has {last_batch} of {batch_size} images"
    assert (message in capsys.readouterr().err) == warned


def test_data_set_without_a_full_batch_is_an_error(task, tmp_path, capsys):
    assert tune(task, tmp_path / "b.pth", "--batch_size", 100, "--drop_last") == 2
    assert "90 images give no batch: training needs at least 100" in capsys.readouterr().err


# A start without features


def shuffle(*words):
    return run(lambda: findings(["shuffle", *map(str, words)]))


def test_shuffled_start_has_the_entries_of_every_counted_weight(task, tmp_path, capsys):
    out = tmp_path / "s.pth"
    assert shuffle("-a", task / "a.pth", "-o", out, "--seed", 3) == 0
    assert capsys.readouterr().out == f"{out}\n"
    before, after = torch.load(task / "a.pth"), torch.load(out)
    assert list(before) == list(after)
    for key, value in before.items():
        counted = value.ndim == 4 and "downsample" not in key
        assert torch.equal(value, after[key]) != counted, key
        assert torch.equal(value.flatten().sort()[0], after[key].flatten().sort()[0])
    assert shuffle("-a", task / "a.pth", "-o", tmp_path / "t.pth", "--seed", 4) == 0
    assert sha256(tmp_path / "t.pth") != sha256(out)


def test_shuffled_start_replaces_nothing_unasked(task, tmp_path, capsys):
    out = tmp_path / "s.pth"
    out.write_text("mine")
    assert shuffle("-a", task / "a.pth", "-o", out) == 2
    assert "s.pth exists; give another name, or add --overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert shuffle("-a", task / "a.pth", "-o", out, "--overwrite") == 0
    assert shuffle("-a", out, "-o", out, "--overwrite") == 2
    assert "which is given as -a" in capsys.readouterr().err
    theta = torch.load(task / "a.pth")
    theta["bn1.running_var"][0] = torch.nan
    torch.save(theta, tmp_path / "nan.pth")
    assert shuffle("-a", tmp_path / "nan.pth", "-o", tmp_path / "other.pth") == 2
    assert "nan.pth: bn1.running_var holds NaN or infinity" in capsys.readouterr().err


# Layers set back


@pytest.mark.parametrize("to", ["a", "r"])
def test_layers_are_set_back_one_by_one(to, task, tmp_path, capsys):
    assert tune(task, tmp_path / "b.pth", "--keep", "last") == 0
    capsys.readouterr()
    words = ["-r", task / "r.pth", "-a", task / "a.pth", "-b", tmp_path / "b.pth", "--to", to]
    words += ["--dataset", "Folder", "--data_dir", task / "data", "--image_size", 32]
    words += ["--num_workers", 0, "--json", tmp_path / "t.json", "--plot", tmp_path / "t.png"]
    assert run(lambda: findings(["reset", *map(str, words)])) == 0
    out = capsys.readouterr().out
    content = json.loads((tmp_path / "t.json").read_text())
    assert (content["to"], content["images"], len(content["layers"])) == (to, 20, 17)
    assert f"{tmp_path / 'b.pth'}: accuracy {content['accuracy']:.2f} % of 20 images" in out
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")

    # By hand: the third layer.
    layer = content["layers"][2]
    theta, start = torch.load(tmp_path / "b.pth"), torch.load(task / f"{to}.pth")
    for i in (1, 2, 3):
        key = f"{layer['layer']}.conv{i}.weight"
        theta[key] = start[key]
    torch.save(theta, tmp_path / "c.pth")
    import evaluate

    words = ["-b", tmp_path / "c.pth", "--dataset", "Folder", "--data_dir", task / "data"]
    words += ["--image_size", 32, "--num_workers", 0]
    assert run(lambda: evaluate.main(list(map(str, words)))) == 0
    expected = f"accuracy {layer['accuracy']:.2f} % of 20 images, loss {layer['loss']:.4f}"
    assert expected in capsys.readouterr().out


def test_layers_are_not_set_back_in_a_network_of_other_classes(task, tmp_path, capsys):
    words = ["-r", task / "r.pth", "-a", task / "a.pth", "-b", task / "b.pth"]
    moved = {k: v + 0.01 if v.is_floating_point() else v for k, v in torch.load(words[3]).items()}
    torch.save(moved, task / "b.pth")
    words += ["--dataset", "Folder", "--data_dir", task / "data", "--image_size", 32]
    assert run(lambda: findings(["reset", *map(str, words)])) == 2
    assert "b.pth has a classifier of 10 classes, but Folder in" in capsys.readouterr().err
