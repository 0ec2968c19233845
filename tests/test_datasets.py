"""Data folders of all kinds: how they are read, and the one line for faulty ones."""

import hashlib
import os
import re
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import miniatures
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from console import InputError
from datasets import DATASETS, load
from datasets.folder import split

ROOT = Path(__file__).parents[1]


def put(*paths, size=(8, 8)):
    """Write a small image to every path."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (hash(path.name) % 256, 60, 90)).save(path, "PNG")


def names(dataset, root):
    """Paths of the data set's files below `root`, in its order."""
    return [os.path.relpath(os.fsdecode(path), os.path.realpath(root)) for path in dataset.paths]


@pytest.fixture
def root(tmp_path):
    """A folder without links in its path, so that names can be compared."""
    return Path(os.path.realpath(tmp_path))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail("a network connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)


# Names and the table


@pytest.mark.parametrize("name", ["CIFAR-10", "cifar10", "Cifar 10", " cifar-1 0"])
def test_names_match_without_case_blanks_and_hyphens(name, root):
    put(
        root / "train/a/1.png", root / "train/b/1.png", root / "test/a/1.png", root / "test/b/1.png"
    )
    assert load(name, root)[2] == ["a", "b"]


def test_unknown_name_lists_the_known(root):
    with pytest.raises(
        InputError, match=f"unknown data set 'CIFAR-11'; known: {', '.join(DATASETS)}"
    ):
        load("CIFAR-11", root)


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize(
    ("state", "words"),
    [("missing", r" \(does not exist\)"), ("file", r" \(not a folder\)"), ("empty", "")],
)
def test_what_is_not_there_is_named_with_what_is_expected(name, state, words, root, no_network):
    data_dir = root / "data"
    if state == "file":
        data_dir.write_text("")
    if state == "empty":
        data_dir.mkdir()
    expected = re.escape(DATASETS[name].expected)
    message = f"^no {name} in .*/data{words}; expected there: {expected}($|; get )"
    if (name, state) == ("Folder", "empty"):
        message = "no images in .*/data: expected class folders"
    with pytest.raises(InputError, match=message) as caught:
        load(name, data_dir)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "size"), [("CIFAR-10", 32), ("CIFAR-100", 32), ("Folder", 224)])
def test_image_size_is_the_data_sets_own_or_the_given(name, size, root):
    put(
        root / "train/a/1.png", root / "train/b/1.png", root / "test/a/1.png", root / "test/b/1.png"
    )
    for given_size, expected in ((None, size), (24, 24)):
        for dataset in load(name, root, image_size=given_size)[:2]:
            image, label = dataset[1]
            assert (image.shape, image.dtype, label) == (
                (3, expected, expected),
                torch.uint8,
                1,
            )


def test_importing_loads_no_torchvision():
    code = "import sys, datasets; assert 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# Class folders


def test_labels_follow_the_training_folders_in_both_splits(root, capsys):
    put(root / "train/a/1.png", root / "train/b/1.png", root / "val/b/1.png")
    train, val, classes = load("Folder", root)
    assert classes == ["a", "b"]
    assert train.labels.tolist() == [0, 1]
    assert val.labels.tolist() == [1]
    assert "/val has no images of class a" in capsys.readouterr().err


def test_class_that_only_val_has_is_an_error(root):
    put(root / "train/a/1.png", root / "train/b/1.png", root / "val/b/1.png", root / "val/c/1.png")
    with pytest.raises(InputError, match=r"/val has class c, which .*/train lacks"):
        load("Folder", root)


def test_hidden_files_and_folders_are_ignored_and_extensions_count_in_any_case(root):
    put(root / "train/a/x.JPG", root / "train/b/y.Png", root / "train/b/z.TIFF")
    put(
        root / "train/a/._x.JPG", root / "train/.ipynb_checkpoints/x.png", root / "train/a/.t/x.png"
    )
    put(root / "val/a/x.webp", root / "val/b/y.ppm")
    (root / "train/a/notes.txt").write_text("")
    train, _, classes = load("Folder", root)
    assert classes == ["a", "b"]
    assert names(train, root) == ["train/a/x.JPG", "train/b/y.Png", "train/b/z.TIFF"]
    assert train.labels.tolist() == [0, 1, 1]


def test_test_folder_validates_where_there_is_no_val(root):
    put(
        root / "train/a/1.png", root / "train/b/1.png", root / "test/a/1.png", root / "test/b/1.png"
    )
    assert names(load("Folder", root)[1], root) == ["test/a/1.png", "test/b/1.png"]
    put(root / "val/a/2.png", root / "val/b/2.png")
    assert names(load("Folder", root)[1], root) == ["val/a/2.png", "val/b/2.png"]


def test_nested_folders_blanks_and_other_letters(root):
    put(root / "train/Gr\u00fcner Tee/2/1.png", root / "train/Gr\u00fcner Tee/1.png")
    put(
        root / "train/\u732b/a b/c d.png",
        root / "val/\u732b/x.png",
        root / "val/Gr\u00fcner Tee/x.png",
    )
    train, _, classes = load("Folder", root)
    assert classes == ["Gr\u00fcner Tee", "\u732b"]
    assert train.labels.tolist() == [0, 0, 1]
    assert train[2][0].shape == (3, 224, 224)


def test_links_are_followed_and_loops_end(root):
    put(root / "elsewhere/1.png", root / "elsewhere/deep/2.png", root / "third/4.png")
    (root / "elsewhere/linked").symlink_to(root / "third")
    put(root / "data/a/1.png", *(root / f"data/a/{i}.png" for i in range(2, 6)))
    (root / "data/b").symlink_to(root / "elsewhere")
    (root / "data/a/3.png").unlink()
    (root / "data/a/3.png").symlink_to(root / "elsewhere/1.png")
    # To itself, to the class, to all classes (whose images are not of class a), to nothing.
    (root / "data/a/self").symlink_to(root / "data/a/self")
    (root / "data/a/up").symlink_to(root / "data/a")
    (root / "data/a/all").symlink_to("..")
    (root / "data/all").symlink_to(root)
    (root / "data/gone").symlink_to(root / "nowhere")
    train, val, classes = load("Folder", root / "data")
    assert classes == ["a", "b"]
    assert sorted(names(train, root) + names(val, root)) == [
        *(f"data/a/{i}.png" for i in range(1, 6)),
        "data/b/1.png",
        "data/b/deep/2.png",
        "data/b/linked/4.png",
    ]


@pytest.mark.parametrize("file", ["train", "a file beside the classes"])
def test_file_where_a_folder_is_expected(file, root):
    put(*(root / name / f"{i}.png" for name in "ab" for i in range(5)))
    (root / file).write_text("")
    if file == "train":
        with pytest.raises(InputError, match=r"/train is a file; expected a folder with class"):
            load("Folder", root)
    else:
        assert load("Folder", root)[2] == ["a", "b"]


def test_folders_that_may_only_be_read_are_enough(root):
    put(root / "train/a/1.png", root / "train/b/1.png", root / "val/a/1.png", root / "val/b/1.png")
    # The superuser may write all the same, so that nothing new is the test for them.
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    before = sorted(root.rglob("*"))
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert load("Folder", root)[1][1][1] == 1
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("refused", ["", "train", "train/b", "train/b/deep"])
def test_folder_that_may_not_be_listed_is_named(refused, root, monkeypatch):
    put(root / "train/a/1.png", root / "train/b/deep/1.png", root / "val/a/1.png")
    scandir = os.scandir

    def scan(path):
        if os.path.realpath(path) == str(root / refused).rstrip("/"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    if not refused:
        (root / "train").rename(root / "other")
    message = f"cannot read the folder {root / refused}: Permission denied"
    with pytest.raises(InputError, match=re.escape(message)):
        load("Folder", root)


def test_data_sets_are_not_taken_for_classes(root):
    for name in ("birds", "textures"):
        put(*(root / name / part / kind / "1.png" for part in ("train", "val") for kind in "ab"))
    with pytest.raises(InputError, match="/birds is no class: it holds train and val") as caught:
        load("Folder", root)
    assert str(caught.value).endswith(f"; did you mean {root / 'birds'}?")


@pytest.mark.parametrize(
    ("given", "meant", "message"),
    [
        ("", "data", "has only one class, data"),
        ("data/train/a", None, "holds 1 images but no class folders"),
    ],
)
def test_folder_a_level_too_high_or_too_low(given, meant, message, root):
    put(*(root / "data" / part / kind / "1.png" for part in ("train", "val") for kind in "ab"))
    with pytest.raises(InputError, match=message) as caught:
        load("Folder", root / given)
    hint = f"; did you mean {root / meant}?" if meant else "does it)"
    assert str(caught.value).endswith(hint)


def test_class_too_small_to_validate_is_warned_of(root, capsys):
    put(*(root / "a" / f"{i}.png" for i in range(5)), *(root / "b" / f"{i}.png" for i in range(4)))
    assert load("Folder", root)[1].labels.tolist() == [0]
    assert "the validation part, a fifth of each class, has no images of class b" in (
        capsys.readouterr().err
    )


def test_flat_validation_folder_is_named_with_how_to_sort_it(root):
    put(root / "train/a/1.png", root / "train/b/1.png")
    put(*(root / f"val/ILSVRC2012_val_{i:08d}.JPEG" for i in range(30)))
    for name in ("ImageNet", "Folder"):
        with pytest.raises(
            InputError, match=r"/val holds 30 images but no class folders; move every"
        ):
            load(name, root)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a/1.png", "b/notes.txt"], "has class b without images"),
        (["a/1.png", "b/notes.txt", "c/notes.txt"], r"has 2 classes \(b, c\) without images"),
        (["a/1.png", "a/2.png"], "has only one class, a; at least two"),
        (
            ["a/notes.txt", "b/notes.txt"],
            "no images in .*: its 2 folders hold no file that ends in .jpg",
        ),
        (["1.png", "2.png"], "holds 2 images but no class folders"),
        (["a/1.png", "b/1.png"], "too few images to split: no class has five"),
        (["train/a/1.png", "train/b/1.png"], "has train, but neither val nor test"),
        (["train/a/1.png", "train/b/1.png", "val/notes.txt"], "no images in .*/val"),
        (["train/a/1.png", "val/a/1.png", "val/b/1.png"], "/train has only one class, a"),
    ],
)
def test_folders_that_cannot_be_used(files, message, root):
    put(*(root / name for name in files if name.endswith("png")))
    for name in files:
        if name.endswith("txt"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("no image")
    with pytest.raises(InputError, match=message) as caught:
        load("Folder", root)
    assert str(root) in str(caught.value)


def test_class_called_train_is_a_class(root):
    put(*(root / name / f"{i}.png" for name in ("plane", "train") for i in range(5)))
    assert load("Folder", root)[2] == ["plane", "train"]


# The split where none is official

classes_of_names = st.dictionaries(
    st.text("abcxyz", min_size=1, max_size=4),
    st.lists(st.text("0123456789", min_size=1, max_size=5), min_size=5, max_size=40, unique=True),
    min_size=1,
    max_size=4,
).map(lambda classes: {name: sorted(paths) for name, paths in classes.items()})


@given(classes_of_names)
def test_a_fifth_of_every_class_validates(images):
    splits = split(images)
    for label, name in enumerate(splits.classes):
        train, val = (
            [path for path, of in zip(*part, strict=True) if of == label]
            for part in (splits.train, splits.val)
        )
        assert sorted(train + val) == images[name]
        assert len(val) == len(images[name]) // 5
    assert split(images) == splits


@given(classes_of_names, st.integers(1, 9))
def test_split_of_a_class_does_not_depend_on_the_others(images, count):
    more = split({"0": [str(i) for i in range(count)], **images})
    expected = [(path, label + 1) for path, label in zip(*split(images).val, strict=True)]
    assert [pair for pair in zip(*more.val, strict=True) if pair[1]] == expected


def test_split_is_the_one_of_seed_one(root):
    put(*(root / name / f"{i:02d}.png" for name in "ab" for i in range(11)))
    _, val, _ = load("Folder", root)
    drawn = torch.randperm(11, generator=torch.Generator().manual_seed(1))[:2]
    expected = [f"{name}/{i:02d}.png" for name in "ab" for i in sorted(drawn.tolist())]
    assert names(val, root) == expected


# ImageNet


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("ILSVRC2012_img_train_224", "ILSVRC2012_img_val_224"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
        ("train", "val"),
        ("tiny-imagenet-200/train", "tiny-imagenet-200/val"),
    ],
)
def test_imagenet_layouts(train, val, root):
    for wnid in ("n02", "n01"):
        put(
            root / train / wnid / "1.JPEG",
            root / train / wnid / "2.JPEG",
            root / val / wnid / "3.JPEG",
        )
    train_set, val_set, classes = load("imagenet", root)
    assert classes == ["n01", "n02"]
    assert train_set.labels.tolist() == [0, 0, 1, 1]
    assert names(val_set, root) == [f"{val}/n01/3.JPEG", f"{val}/n02/3.JPEG"]


@pytest.fixture
def tiny(root):
    """Tiny-ImageNet-200 in miniature, as distributed."""
    folder = root / "tiny-imagenet-200"
    for wnid in ("n02", "n01"):
        put(*(folder / f"train/{wnid}/images/{wnid}_{i}.JPEG" for i in range(3)))
        (folder / f"train/{wnid}/{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
    put(
        *(folder / f"val/images/val_{i}.JPEG" for i in range(3)), folder / "test/images/test_0.JPEG"
    )
    lines = [
        f"val_{i}.JPEG\t{wnid}\t0\t0\t62\t62\n" for i, wnid in enumerate(("n02", "n01", "n02"))
    ]
    (folder / "val/val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("n02\nn01\n")
    return folder


def test_tiny_imagenet_as_distributed(tiny):
    for data_dir in (tiny, tiny.parent):
        train, val, classes = load("ImageNet", data_dir, image_size=64)
        assert classes == ["n01", "n02"]
        assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert names(val, tiny) == [f"val/images/val_{i}.JPEG" for i in (1, 0, 2)]
        assert val.labels.tolist() == [0, 1, 1]
        assert val[0][0].shape == (3, 64, 64)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val_0.JPEG\tn01\nval_9.JPEG\tn02\n", r"line 2: there is no image .*/val_9.JPEG"),
        ("val_0.JPEG\tn07\n", "val_annotations.txt has class n07, which .*/train lacks"),
        ("val_0.JPEG\n", "val_annotations.txt has class"),
        ("", "val_annotations.txt is empty"),
    ],
)
def test_tiny_imagenet_whose_list_disagrees(tiny, text, message):
    (tiny / "val/val_annotations.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        load("ImageNet", tiny)


# CIFAR


@pytest.fixture(params=["CIFAR-10", "CIFAR-100"])
def cifar(request, root, monkeypatch):
    """(name, folder of miniature batches of two images each, their pixels of the first batch)."""
    return request.param, *miniatures.cifar(request.param, root / "data", monkeypatch)


def check_cifar(name, data_dir, first):
    train, val, classes = load(name, data_dir)
    assert len(classes) == int(name.split("-")[1])
    assert len(train) == (10 if name == "CIFAR-10" else 2)
    assert len(val) == 2
    assert train.labels.tolist()[:2] == [0, 9]
    image, label = train[1]
    assert torch.equal(image, torch.from_numpy(first[1]))
    assert label == 9


def test_official_batches_are_found_in_the_folder_and_above_it(cifar, no_network):
    name, folder, first = cifar
    for data_dir in (folder, folder.parent):
        before = sorted(folder.parent.rglob("*"))
        check_cifar(name, data_dir, first)
        check_cifar(name, data_dir, first)
        assert sorted(folder.parent.rglob("*")) == before
    folder.rename(folder.with_name("another name"))
    check_cifar(name, folder.with_name("another name"), first)


@pytest.fixture
def packed(cifar, monkeypatch):
    """The miniature as its official archive alone."""
    name, folder, first = cifar
    kind = getattr(torchvision.datasets, name.replace("-", ""))
    archive = folder.parent / kind.filename
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, kind.base_folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    return name, archive, first


def test_archive_is_unpacked_once(packed, no_network, monkeypatch):
    name, archive, first = packed
    check_cifar(name, archive.parent, first)

    def again(*args):
        pytest.fail("unpacked again")

    monkeypatch.setattr(torchvision.datasets.utils, "extract_archive", again)
    check_cifar(name, archive.parent, first)
    assert len(list(archive.parent.iterdir())) == 2


def test_damaged_archive_leaves_nothing(packed, no_network):
    name, archive, _ = packed
    archive.write_bytes(archive.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"tar.gz is damaged or incomplete \(by its MD5 sum\)"):
        load(name, archive.parent)
    assert list(archive.parent.iterdir()) == [archive]


def test_archive_that_cannot_be_unpacked_is_named_and_leaves_nothing(packed, monkeypatch):
    name, archive, _ = packed

    def full(source, target):
        (Path(target) / "part").write_bytes(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torchvision.datasets.utils, "extract_archive", full)
    with pytest.raises(InputError, match=r"cannot unpack .*tar.gz: No space left on device"):
        load(name, archive.parent)
    assert list(archive.parent.iterdir()) == [archive]


@pytest.mark.parametrize("damage", ["damaged", "missing"])
def test_damaged_and_missing_batches_are_named(cifar, damage, no_network):
    name, folder, _ = cifar
    path = folder / ("data_batch_3" if name == "CIFAR-10" else "test")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(
        InputError, match=f"/{path.name} is {damage}.*unpack cifar-10.*tar.gz again"
    ):
        load(name, folder)
