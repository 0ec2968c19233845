"""Parts of a data set: first classes, and draws of training images that are nested and balanced."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_datasets import names, put

import finetune
from console import InputError, run
from datasets import load
from datasets.folder import Samples, Splits
from datasets.subset import draw, first_classes
from models import build, checkpoint


def samples(counts):
    """Names c_i of image i of class c, so many of every class, the classes mixed."""
    pairs = sorted((i, c) for c, count in enumerate(counts) for i in range(count))
    return Samples([f"{c}_{i}" for i, c in pairs], [c for _, c in pairs])


@given(
    counts=st.lists(st.integers(1, 12), min_size=2, max_size=5),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_draws_are_nested_balanced_and_in_order(counts, seed, data):
    whole = samples(counts)
    large = data.draw(st.integers(len(counts), sum(counts)))
    small = data.draw(st.integers(len(counts), large))
    drawn = draw(whole, large, seed=seed)
    assert len(drawn.images) == len(drawn.labels) == large
    assert set(draw(whole, small, seed=seed).images) <= set(drawn.images)
    assert [name for name in whole.images if name in set(drawn.images)] == drawn.images
    assert [name.split("_")[0] for name in drawn.images] == [str(c) for c in drawn.labels]
    # Classes differ by more than one image only where the smaller one is used up.
    got = np.bincount(drawn.labels, minlength=len(counts))
    for c, count in enumerate(counts):
        assert got[c] == count or got[c] >= got.max() - 1


def test_draw_of_everything_is_the_data_set():
    whole = samples([3, 5, 1])
    assert draw(whole, 9, seed=4) == whole


def test_draw_depends_on_the_seed_and_not_on_the_other_classes():
    large, other = draw(samples([50, 50]), 20, seed=0), draw(samples([50, 50]), 20, seed=1)
    assert set(large.images) != set(other.images)
    three = draw(samples([50, 50, 50]), 30, seed=0)
    assert [name for name in three.images if not name.startswith("2")] == large.images


def test_pixels_are_drawn_with_their_labels():
    labels = [i % 3 for i in range(30)]
    pixels = np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)
    drawn = draw(Samples(pixels, labels), 9, seed=0)
    assert drawn.images.shape == (9, 2, 2, 3)
    assert [int(image[0, 0, 0]) % 3 for image in drawn.images] == drawn.labels
    assert np.bincount(drawn.labels).tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (10, "--max_samples 10 is more than the 9 training images"),
        (2, "--max_samples 2 is less than the 3 classes"),
    ],
)
def test_draw_that_cannot_be_made(number, message):
    with pytest.raises(InputError, match=message):
        draw(samples([3, 5, 1]), number, seed=0)


def test_first_classes_are_kept_in_both_splits():
    splits = Splits(["a", "b", "c"], samples([2, 1, 2]), samples([1, 1, 1]))
    assert first_classes(splits, 2) == Splits(["a", "b"], samples([2, 1]), samples([1, 1]))
    assert first_classes(splits, 3) == splits


@pytest.mark.parametrize("number", [1, 4])
def test_number_of_classes_that_is_not_there(number):
    splits = Splits(["a", "b", "c"], samples([2, 1, 2]), samples([1, 1, 1]))
    with pytest.raises(InputError, match=f"--max_classes {number} must be from 2 to 3"):
        first_classes(splits, number)


def test_first_classes_without_validation_images():
    splits = Splits(["a", "b", "c"], samples([2, 1, 2]), Samples(["2_0"], [2]))
    with pytest.raises(InputError, match="first 2 classes have no validation images"):
        first_classes(splits, 2)


@pytest.fixture
def folder(tmp_path):
    """Three classes of eight training images and two validation images."""
    for c in "abc":
        put(*(tmp_path / "data" / "train" / c / f"{i}.png" for i in range(8)))
        put(*(tmp_path / "data" / "val" / c / f"{i}.png" for i in range(2)))
    return tmp_path / "data"


def test_load_limits_training_images_and_classes(folder):
    train, val, classes = load("Folder", folder, max_classes=2, max_samples=6, seed=3)
    assert classes == ["a", "b"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert val.labels.tolist() == [0, 0, 1, 1]
    assert set(names(train, folder)) <= set(names(load("Folder", folder)[0], folder))
    other = load("Folder", folder, max_classes=2, max_samples=6, seed=4)[0]
    assert names(other, folder) != names(train, folder)


def test_limits_of_fine_tuning_are_recorded_and_belong_to_the_run(folder, tmp_path, capsys):
    a, b = tmp_path / "a.pth", tmp_path / "b.pth"
    checkpoint.write(a, build("resnet50_w8", 10).state_dict())
    options = [
        *("--dataset", "Folder", "--data_dir", folder, "--arch", "resnet50_w8"),
        *("--image_size", 32, "--batch_size", 4, "--num_workers", 0, "--max_epoch", 1),
        *("-a", a, "-b", b, "--max_classes", 2),
    ]

    def tune(*more):
        return run(lambda: finetune.main([str(x) for x in (*options, *more)]))

    assert tune("--max_samples", 12) == 0
    record = json.loads((tmp_path / "b.json").read_text())
    assert (record["args"]["max_samples"], record["args"]["max_classes"]) == (12, 2)
    assert (record["train_images"], record["val_images"]) == (12, 4)
    assert record["classes"] == ["a", "b"]

    assert tune("--max_samples", 17, "--overwrite") == 2
    assert "--max_samples 17 is more than the 16 training images" in capsys.readouterr().err
