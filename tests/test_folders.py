"""Folders that are not what they seem: other names of splits, strange files, links, videos."""

import os
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from console import InputError, run
from datasets import find, load
from datasets.__main__ import main
from datasets.folder import split, video


@pytest.fixture
def root(tmp_path):
    """A folder without links in its path, so that names can be compared."""
    return Path(os.path.realpath(tmp_path))


def put(*paths):
    """Write a small image to every path, each of another colour, as its ending says."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        number = len(list(path.parent.parent.rglob("*")))
        image = Image.new("RGB", (8, 8), (number % 256, len(path.name) % 256, 90))
        image.save(path, {".jfif": "JPEG", ".jpe": "JPEG"}.get(path.suffix.lower()))


def put_splits(root, *splits, classes="ab", number=2):
    """Class folders in each of the splits; names of images tell the split."""
    for part in splits:
        put(*(root / part / c / f"{part} {i}.png" for c in classes for i in range(number)))


def names(samples, root):
    """Paths of images below `root`."""
    return [os.path.relpath(path, root) for path in samples.images]


def check(root, name="Folder"):
    """Exit code of `python -m datasets check`, in this process."""
    return run(lambda: main(["check", name, str(root), "--workers", "0"]))


# Names of splits


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training", "Training"])
@pytest.mark.parametrize(
    "val", ["val", "Val", "valid", "VALID", "validation", "Validation", "test", "Test", "testing"]
)
def test_splits_are_known_by_name_in_any_case(train, val, root, capsys):
    put_splits(root, train, val)
    train_set, val_set, classes = load("Folder", root)
    assert classes == ["a", "b"]
    assert (len(train_set), len(val_set)) == (4, 4)
    said = f"{root}: {train} trains, {val} validates\n"
    assert capsys.readouterr().out == ("" if (train, val) == ("train", "val") else said)


@pytest.mark.parametrize(
    ("there", "used"),
    [
        (("val", "test"), "val"),
        (("valid", "test"), "valid"),
        (("Test", "Valid"), "Valid"),
        (("testing", "validation"), "validation"),
        (("val", "valid", "test"), "val"),
        (("VAL", "val"), "val"),
    ],
)
def test_validation_is_preferred_to_test_and_what_is_passed_over_is_said(there, used, root, capsys):
    put_splits(root, "train", *there)
    assert {name.partition("/")[0] for name in names(find("Folder", root).val, root)} == {used}
    assert check(root) == 0
    others = ", ".join(sorted(set(there) - {used}))
    line = f"{root}: train trains, {used} validates; passed over: {others}\n"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("name", ["cifar10", "ImageNet"])
def test_other_readers_say_what_their_splits_are(name, root, capsys):
    used, passed = ("test", "val") if name == "cifar10" else ("val", "ILSVRC2012_img_train")
    put_splits(root, "train", used, passed)
    assert len(load(name, root)[1]) == 4
    line = f"{root}: train trains, {used} validates; passed over: {passed}\n"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["Train/a", "Train/b"], "has Train, but neither val nor test"),
        (["training/1.png", "plane/1.png"], "has training, but neither val nor test"),
        (["valid/a", "Test/a"], "has valid, but no train: expected train/CLASS"),
        (["test/1.png", "plane/1.png"], "has test, but no train: expected train/CLASS"),
        (["seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b"], "seg_test and seg_train are"),
        (["train_set/a", "train_set/b", "dev_set/a", "dev_set/b"], "dev_set and train_set are no"),
        (["train2017/a", "train2017/b", "val2017/a", "val2017/b"], "train2017 and val2017 are no"),
        (["images_train/a", "images_train/b", "rest/a", "rest/b"], "images_train and rest are no"),
        (["tr/a", "tr/b", "te/a", "te/b"], "te and tr are no classes"),
        (
            ["birds/Training/a", "cars/1.png", "birds/Validate/a"],
            "birds is no class: it holds Train",
        ),
        (["birds/train/1.png", "cars/1.png", "birds/eval/1.png"], "birds is no class: it holds"),
        (
            ["birds/Training/a", "cars/1.png", "birds/Testing/a"],
            "birds is no class: it holds Train",
        ),
    ],
)
def test_folders_that_look_like_splits_are_never_classes(folders, message, root):
    for name in folders:
        put(*([root / name] if name.endswith("png") else [root / name / f"{i}.png" for i in "01"]))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load("Folder", root)
    assert "\n" not in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_classes_whose_names_only_resemble_splits(root):
    put(*(root / c / f"{i}.png" for c in ("Train", "test tube", "constraint") for i in range(5)))
    put(*(root / "train station" / part / f"{i}.png" for part in "xy" for i in range(5)))
    put(*(root / "developer" / part / f"{i}.png" for part in "xy" for i in range(5)))
    classes = ["Train", "constraint", "developer", "test tube", "train station"]
    assert find("Folder", root).classes == classes


# What is ignored, and what is left out


@pytest.mark.parametrize(
    "folder",
    [
        *("@eaDir", "#recycle", "$RECYCLE.BIN", "$Recycle.Bin", "lost+found", "__MACOSX"),
        *("System Volume Information", ".Trash-1000", "~snapshot", "FOUND.000"),
    ],
)
def test_folders_that_systems_make_are_ignored_at_any_level(folder, root, tmp_path, capsys):
    put_splits(root, "train", "val")
    put(
        root / folder / "a/1.png",
        root / "train" / folder / "a/1.png",
        root / "train/a" / folder / "1.png/THUMB.png",
        root / "train/a/deep" / folder / "1.png",
    )
    splits = find("Folder", root)
    assert splits.classes == ["a", "b"]
    assert len(splits.train.images) == 4
    assert capsys.readouterr().err == ""
    assert check(root) == 0
    assert "not taken: 4 files hidden or made by the system, such as " in capsys.readouterr().out
    copy = root.parent / "copy"
    assert run(lambda: main(["resize", str(root), str(copy), "--size", "8", "--workers", "0"])) == 0
    assert not [path for path in copy.rglob("*") if path.name == folder]


@pytest.mark.parametrize("ending", ["jfif", "jpe", "gif", "avif", "jp2", "JFIF", "Gif", "AVIF"])
def test_rarer_endings_are_read(ending, root):
    put(root / f"train/a/1.{ending}", root / "train/b/1.png", root / f"val/a/1.{ending}")
    train, _, _ = load("Folder", root, image_size=8)
    assert len(train) == 2
    assert train[0][0].shape == (3, 8, 8)


def test_files_that_are_left_out_are_counted_by_the_run_and_by_check(root, capsys):
    put_splits(root, "train", "val", "test")
    for name in ("a/x.heic", "a/y.HEIC", "b/deep/notes.txt", "b/noending", "labels.csv"):
        (root / "train" / name).parent.mkdir(exist_ok=True)
        (root / "train" / name).write_text("x")
    put(root / "train/loose.png", root / "train/a/._x.png")
    (root / "train/a/Thumbs.db").write_text("")
    load("Folder", root)
    assert capsys.readouterr().err == (
        "warning: left out: 5 files that are no images by their names (.heic 2, .csv 1, .txt 1, no "
        f"ending 1), such as {root}/train/a/x.heic\n"
        f"warning: left out: 1 image beside the class folders of {root}/train\n"
    )
    assert check(root) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "not taken" in line]
    assert lines == [
        "not taken: 5 files that are no images by their names (.heic 2, .csv 1, .txt 1, no "
        "ending 1), such as train/a/x.heic",
        "not taken: 2 files hidden or made by the system, such as train/a/._x.png",
        "not taken: 1 image in no class folder or list, such as train/loose.png",
        "not taken: 4 images in test, which is passed over, such as test/a/test 0.png",
    ]


def test_class_of_other_files_alone_says_which(root):
    put_splits(root, "train", "val", classes="ab")
    (root / "train/c").mkdir()
    (root / "train/c/x.heic").write_text("")
    message = r"has class c without images; .*; it has 1 file .*\(.heic 1\), such as .*c/x.heic"
    with pytest.raises(InputError, match=message):
        load("Folder", root)


# Links, and images that are there twice


def test_class_folder_that_is_a_dangling_link_is_named(root, capsys):
    put_splits(root, "train", "val")
    (root / "train/fox").symlink_to("/nowhere/fox")
    (root / "train/circle").symlink_to("circle")
    (root / "train/a/more").symlink_to("/nowhere")
    (root / "train/a/all").symlink_to("..")
    for call in (lambda: load("Folder", root), lambda: check(root)):
        call()
        err = capsys.readouterr().err
        assert (
            f"{root}/train/fox is a link that leads nowhere (/nowhere/fox); it is left out" in err
        )
        assert f"{root}/train/circle is a link that leads nowhere" in err
        assert f"{root}/train/a/more is a link that leads nowhere" in err
        assert f"{root}/train/a/all is a link that leads to a folder above it (..)" in err


def test_class_folder_linked_to_another_class_is_named(root, capsys):
    put_splits(root, "train", "val")
    (root / "train/c").symlink_to("a")
    for call in (lambda: load("Folder", root), lambda: check(root)):
        call()
        err = capsys.readouterr().err
        assert f"{root}/train/c is a link that leads to the same folder as class a" in err
        assert "2 images in two classes, the same file: " in err


@pytest.mark.parametrize("kind", ["link", "hard link", "folder"])
def test_one_file_in_two_classes_is_named(kind, root, capsys):
    put(*(root / name / f"{i}.png" for name in "ab" for i in range(6)))
    if kind == "link":
        (root / "b/x.png").symlink_to("../a/3.png")
    elif kind == "hard link":
        os.link(root / "a/3.png", root / "b/x.png")
    else:
        put(root / "a/deep/1.png")
        (root / "b/deep").symlink_to("../a/deep")
    pair = "a/deep/1.png, {0}/b/deep/1.png" if kind == "folder" else "a/3.png, {0}/b/x.png"
    for call in (lambda: load("Folder", root), lambda: check(root)):
        call()
        err = capsys.readouterr().err
        assert f"1 image in two classes, the same file: {root}/{pair.format(root)}\n" in err


def test_one_file_in_both_splits_is_named(root, capsys):
    put_splits(root, "train", "val")
    os.link(root / "train/a/train 0.png", root / "val/a/same.png")
    load("Folder", root)
    assert "1 image in two splits, the same file: " in capsys.readouterr().err
    # Twice in one class does no harm.
    (root / "val/a/same.png").unlink()
    os.link(root / "train/a/train 0.png", root / "train/a/same.png")
    load("Folder", root)
    assert capsys.readouterr().err == ""


def test_copies_in_two_classes_are_found_by_check(root, capsys):
    put_splits(root, "train", "val", number=3)
    content = (root / "train/a/train 1.png").read_bytes()
    for name in ("train/b/copy.png", "val/b/copy.png", "train/a/copy.png"):
        (root / name).write_bytes(content)
    assert check(root) == 0
    out = capsys.readouterr().out
    assert re.search(r"^content in two classes +3 +1$", out, re.MULTILINE)
    assert "content in two classes: train/a/train 1.png, train/b/copy.png\n" in out


# Folds and videos


def put_folds(root, folds, classes=("covid", "pneumonia", "regular")):
    for fold in folds:
        put(*(root / fold / c / f"{fold}_{c}.mp4_frame{i}.png" for c in classes for i in range(3)))


@pytest.mark.parametrize("name", ["POCUS", "Folder"])
@pytest.mark.parametrize(
    "folds",
    [
        [f"split{i}" for i in range(5)],
        ["split2", "split10", "split3"],
        ["Split_1", "Split_2"],
        ["fold 1", "fold 2", "fold 3"],
    ],
)
def test_lowest_fold_validates(name, folds, root, capsys):
    put_folds(root, folds)
    train, val, classes = load(name, root)
    assert classes == ["covid", "pneumonia", "regular"]
    assert (len(train), len(val)) == (9 * (len(folds) - 1), 9)
    assert {os.fsdecode(path).split("/")[-3] for path in val.paths} == {folds[0]}
    lowest, *others = sorted(folds, key=lambda fold: int(re.sub(r"\D", "", fold)))
    line = f"{root}: {', '.join(others)} {'trains' if len(others) == 1 else 'train'}, {lowest} vali"
    assert line in capsys.readouterr().out


def test_pocus_below_its_repository(root):
    put_folds(root / "data/cross_validation", ["split0", "split1"])
    for data_dir in (root / "data", root / "data/cross_validation"):
        assert len(find("POCUS", data_dir).train.images) == 9


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["split0/a", "split0/b"], "has split0 alone; expected a second such folder"),
        (["split0/a", "split1/a"], "has only one class, a"),
        (["split0/a", "split0/b", "split1/b", "split1/c"], "split0 has class a, which .*split1"),
        (["fold1/train/a", "fold1/val/a", "fold2/train/a"], "fold1 is no class: it holds train"),
    ],
)
def test_folds_that_cannot_be_used(folders, message, root):
    put(*(root / name / "1.png" for name in folders))
    with pytest.raises(InputError, match=message):
        load("POCUS", root)


def frames(stem, numbers):
    return [f"c/{stem}_frame{i}.png" for i in range(numbers)]


@given(st.dictionaries(st.sampled_from("vwxyz"), st.integers(1, 30)), st.integers(0, 30))
def test_frames_of_a_video_stay_on_one_side(videos, singles):
    paths = [path for name, number in videos.items() for path in frames(f"{name}.mp4", number)]
    paths = sorted(paths + [f"c/{i}.png" for i in range(singles)])
    classes = {"c": paths, "d": [f"d/{i}.png" for i in range(9)]}
    splits = split({name: images for name, images in classes.items() if images})
    sides = [[path for path in part.images if path[0] == "c"] for part in splits[1:3]]
    if paths:
        assert sorted(sides[0] + sides[1]) == paths
        assert sides[0]
        if len({video(path) for path in paths}) > 1:
            assert len(sides[1]) >= min(len(paths) // 5, 1)
        assert not {video(path) for path in sides[0]} & {video(path) for path in sides[1]}


def test_videos_are_drawn_by_seed_one_until_a_fifth_validates():
    paths = sorted(path for name in "abcdefgh" for path in frames(name, 5))
    splits = split({"c": paths, "d": [f"d/{i}.png" for i in range(5)]})
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1)).tolist()
    drawn = sorted(path for i in order[:2] for path in frames("abcdefgh"[i], 5))
    assert [path for path in splits.val.images if path[0] == "c"] == drawn


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("c/Cov-Atlas.gif_frame0.jpg", "c/Cov-Atlas.gif"),
        ("c/Reg_1_frame12.png", "c/Reg_1"),
        ("c/Reg_frame.png", "c/Reg_frame.png"),
        ("c/frame_12.png", "c/frame_12.png"),
        ("c/Reg_frame 12.png", "c/Reg_frame 12.png"),
        ("c_frame1/x.png", "c_frame1/x.png"),
        ("c/Reg_frame12_left.png", "c/Reg_frame12_left.png"),
    ],
)
def test_videos_are_told_by_two_patterns_only(path, name):
    assert video(path) == name


def test_classes_of_one_video_each_are_split_as_before_with_a_warning(root, capsys):
    paths = {c: [f"{root}/{c}/v_frame{i}.png" for i in range(10)] for c in "ab"}
    splits = split(paths)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1)).tolist()
    expected = [paths[c][i] for c in "ab" for i in sorted(order[:2])]
    assert splits.val.images == expected
    assert "every class is one video, whose frames are on both sides" in capsys.readouterr().err


def test_check_counts_videos_on_both_sides(root, capsys):
    for part, numbers in (("train", (0, 1, 2)), ("val", (3, 4))):
        put(*(root / part / "a" / f"v{v}.mp4_frame{i}.png" for v in "123" for i in numbers))
        put(*(root / part / "b" / f"{part}.mp4_frame{i}.png" for i in numbers))
    (root / "val/a/v3.mp4_frame3.png").unlink()
    (root / "val/a/v3.mp4_frame4.png").unlink()
    assert check(root) == 0
    out = capsys.readouterr().out
    assert re.search(r"^videos in both splits +2 +2  their frames: 6 \+ 4$", out, re.MULTILINE)
    assert "videos in both splits: a/v1.mp4\n" in out
