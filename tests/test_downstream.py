"""The twelve downstream data sets: read as their owners distribute them, or refused in one line."""

import json
import os
import re
import tarfile
import urllib.error
from pathlib import Path

import miniatures
import pytest
import torch
import torchvision

import finetune
import pretrain_on_ImageNet
from console import InputError, run
from datasets import DATASETS, download, find, load
from datasets.unsplit import FLOWERS

DOWNSTREAM = list(miniatures.DATA_DIRS)
INDEXED = ("CUB-200", "Aircraft", "DTD", "DomainNet-r", "DomainNet-p", "DomainNet-c")


@pytest.fixture
def root(tmp_path):
    """A folder to unpack an archive in, which has no neighbours."""
    folder = tmp_path / "only" / "data"
    folder.mkdir(parents=True)
    return folder


def drawn(names, count):
    """The first `count` names that the split rule draws, sorted."""
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(1))
    return sorted(names[i] for i in order[:count].tolist())


def fifth(names):
    """(training, validation) names where one fifth validates."""
    val = drawn(names, len(names) // 5)
    return [name for name in names if name not in val], val


def thirty(names):
    """(training, validation) names where thirty train."""
    train = drawn(names, 30)
    return train, [name for name in names if name not in train]


def parts_of(train, val):
    """A split that takes these places of every class."""
    return lambda names: ([names[i] for i in train], [names[i] for i in val])


# Data set -> its classes, and the training and validation files among those of a class.
EXPECTED = {
    "Caltech-101": (list(miniatures.CALTECH), thirty),
    "CUB-200": (miniatures.BIRDS, parts_of((0, 2), (1, 3))),
    "Aircraft": (miniatures.VARIANTS, parts_of((0, 1), (2,))),
    "Flowers": (list(FLOWERS), fifth),
    "Land-Use": (miniatures.LAND_USES, fifth),
    "POCUS": (list(miniatures.LUNGS), fifth),
    "DTD": (miniatures.TEXTURES, parts_of((0,), (2,))),
    **{name: (miniatures.OBJECTS, parts_of((0, 1, 2), (3,))) for name in miniatures.DOMAINS},
}


def expected(name):
    """(classes, training, validation) of a miniature; the last two: (path below root, label)."""
    classes, split = EXPECTED[name]
    parts = [split(names) for names in miniatures.files_of(name)]
    train, val = (
        [(path, label) for label, part in enumerate(parts) for path in part[which]]
        for which in (0, 1)
    )
    return classes, train, val


def pairs(samples, root):
    """(path below root, label) of all samples."""
    paths = [os.path.relpath(path, root) for path in samples.images]
    return list(zip(paths, samples.labels, strict=True))


def check(name, data_dir, root):
    """Assert that `data_dir` gives the miniature in `root`."""
    splits = find(name, data_dir)
    assert (splits.classes, pairs(splits.train, root), pairs(splits.val, root)) == expected(name)


def get(name, data_dir):
    """What --download does."""
    download(name, data_dir)
    return find(name, data_dir)


def error_of(name, data_dir, function=find):
    """The one line of the error."""
    with pytest.raises(InputError) as caught:
        function(name, data_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path, old, new):
    """Replace a text in a file, once."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


# All twelve


@pytest.mark.parametrize(
    ("name", "below"),
    [(name, below) for name in DOWNSTREAM for below in miniatures.DATA_DIRS[name]],
)
def test_archive_is_read_from_its_folder_and_from_above(name, below, root, monkeypatch):
    miniatures.build(name, root, monkeypatch)
    for data_dir in (root / below, "."):
        monkeypatch.chdir(root / below)
        # test_datasets.py tests the pixels and labels of CIFAR.
        if not name.startswith("CIFAR"):
            check(name, data_dir, root)
        train, val, classes = load(name, data_dir, image_size=32)
        for dataset in (train, val):
            image, label = dataset[len(dataset) - 1]
            assert (image.shape, image.dtype) == ((3, 32, 32), torch.uint8)
            assert 0 <= label < len(classes)


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_counts_unlike_the_published_ones_are_one_warning(name, root, monkeypatch, capsys):
    miniatures.build(name, root, monkeypatch)
    splits = find(name, root)
    counts = (len(splits.classes), len(splits.train.labels), len(splits.val.labels))
    published = DATASETS[name].published
    lines = capsys.readouterr().err.splitlines()
    if counts == published:  # Flowers
        assert lines == []
        return
    texts = [
        "{:,} classes, {:,} training and {:,} validation images".format(*c)
        for c in (counts, published)
    ]
    assert lines == [f"warning: {name} in {root} has {texts[0]}; published are {texts[1]}"]
    monkeypatch.setitem(DATASETS, name, DATASETS[name]._replace(published=counts))
    find(name, root)
    assert capsys.readouterr().err == ""


def test_published_counts_agree_with_the_archives():
    published = {name: DATASETS[name].published for name in DOWNSTREAM}
    assert published["CIFAR-10"] == (10, 50000, 10000)
    assert published["CIFAR-100"] == (100, 50000, 10000)
    assert published["CUB-200"] == (200, 5994, 11788 - 5994)
    assert published["Aircraft"] == (100, 6667, 3333)
    assert published["DTD"] == (47, 47 * 40, 47 * 40)
    assert published["Land-Use"] == (21, 21 * 80, 21 * 20)
    assert published["Flowers"] == (17, 17 * 64, 17 * 16)
    assert published["Caltech-101"] == (102, 102 * 30, 9144 - 102 * 30)
    assert published["POCUS"] == (3, 1692, 2116 - 1692)
    assert published["DomainNet-r"] == (345, 120906, 52041)
    assert published["DomainNet-p"] == (345, 50416, 21850)
    assert published["DomainNet-c"] == (345, 33525, 14604)


@pytest.fixture(scope="module")
def theta_a(tmp_path_factory):
    """Untrained parameters of the smallest network."""
    folder = tmp_path_factory.mktemp("theta")
    small = ["--arch", "resnet50_w8", "--image_size", "32", "--max_epoch", "0"]
    pretrain_on_ImageNet.main([*small, "-r", str(folder / "r.pth"), "-a", str(folder / "a.pth")])
    return folder / "r.pth"


def tune(name, data_dir, theta_a, out, *options):
    """Fine-tune for one epoch; the record of it."""
    words = [
        *("--dataset", name, "--data_dir", str(data_dir), *options),
        *("-a", str(theta_a), "-b", str(out / "b.pth"), "--arch", "resnet50_w8"),
        *("--image_size", "32", "--batch_size", "8", "--num_workers", "0"),
        # Batch statistics of two images make large gradients.
        *("--lr", "1e-5"),
        *("--max_epoch", "1", "--device", "cpu"),
    ]
    assert run(lambda: finetune.main(words)) == 0
    return json.loads((out / "b.json").read_text())


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_one_epoch_on_every_data_set(name, root, theta_a, tmp_path, monkeypatch):
    miniatures.build(name, root, monkeypatch)
    splits = find(name, root)
    # The miniature of Flowers is as large as the original.
    kept = 2 if name == "Flowers" else len(splits.classes)
    limit = ["--max_classes", "2"] if name == "Flowers" else []
    record = tune(name, root, theta_a, tmp_path, *limit)
    counts = [sum(label < kept for label in part.labels) for part in (splits.train, splits.val)]
    assert [record["train_images"], record["val_images"]] == counts
    assert record["classes"] == splits.classes[:kept]


# Packed still, or a folder away


@pytest.mark.parametrize(
    ("name", "archive"),
    [(name, archive) for name in DATASETS for archive in DATASETS[name].archives],
)
def test_packed_archive_is_named_with_the_command_that_unpacks_it(name, archive, root):
    file = root / archive
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"packed")
    command = f"unzip {file} -d {root}" if archive.endswith("zip") else f"tar -xf {file} -C {root}"
    for function in (find, get):
        assert error_of(name, root, function).endswith(f"; unpack it: {command}")
    if file.parent == root:
        message = error_of(name, file)
        assert "(not a folder)" in message
        assert message.endswith(f"; unpack it: {command}")


def test_command_that_unpacks_survives_blanks(root):
    folder = root / "my data"
    folder.mkdir()
    (folder / "dtd-r1.0.1.tar.gz").write_bytes(b"packed")
    assert f"tar -xf '{folder}/dtd-r1.0.1.tar.gz' -C '{folder}'" in error_of("DTD", folder)


@pytest.mark.parametrize("name", DOWNSTREAM)
def test_folder_one_level_up_is_answered_with_the_right_one(name, root, monkeypatch):
    # Another folder comes first in the alphabet.
    miniatures.build(name, root / "set", monkeypatch)
    (root / "another").mkdir()
    message = error_of(name, root)
    assert message.startswith(f"no {name} in {root}; expected there: {DATASETS[name].expected}; ")
    assert message.endswith(f"; did you mean {root / 'set'}?")


@pytest.mark.parametrize(
    ("name", "below", "meant"),
    [
        ("CUB-200", "CUB_200_2011/images", "CUB_200_2011"),
        ("CUB-200", "CUB_200_2011/images.txt", "CUB_200_2011"),
        ("CUB-200", "CUB_200_2012", ""),
        ("Aircraft", "fgvc-aircraft-2013b/data/images", "fgvc-aircraft-2013b/data"),
        ("DTD", "dtd/images", "dtd"),
        ("Caltech-101", "101_ObjectCategories/accordion", "101_ObjectCategories"),
        ("DomainNet-r", "real/airplane", "real"),
    ],
)
def test_folder_one_level_down_is_answered_with_the_right_one(
    name, below, meant, root, monkeypatch
):
    miniatures.build(name, root, monkeypatch)
    assert error_of(name, root / below).endswith(f"; did you mean {root / meant}?")


@pytest.mark.parametrize("name", ["Folder", "Flowers", "Land-Use", "POCUS"])
@pytest.mark.parametrize("below", ["a", "nonexistent"])
def test_folder_above_is_not_meant_because_of_any_image_below_it(name, below, root):
    for kind in "ab":
        miniatures.put(root / kind / "1.png")
    for loose in (root / "a").iterdir():
        loose.rename(root / "a" / "file.txt")
    assert "did you mean" not in error_of(name, root / below)


@pytest.mark.parametrize("name", DATASETS)
def test_root_of_the_file_system_is_not_meant(name, monkeypatch):
    everywhere = DATASETS[name]._replace(tops=("",), marker=os.path.exists)
    monkeypatch.setitem(DATASETS, name, everywhere)
    assert "did you mean" not in error_of(name, "/nonexistent")


def test_of_several_folders_the_one_of_that_name_is_meant(root):
    miniatures.build("Land-Use", root / "any")
    for name in ("flowers", "my Po-CUS"):
        miniatures.build("POCUS", root / name)
    assert error_of("POCUS", root).endswith(f"; did you mean {root / 'my Po-CUS'}?")


def test_folder_of_train_and_test_is_meant_for_one_of_them(root):
    for part in ("train", "test"):
        for kind in "ab":
            miniatures.put(root / part / kind / "1.png")
    assert error_of("CIFAR-10", root / "train").endswith(f"; did you mean {root}?")


@pytest.mark.parametrize("name", [name for name in DOWNSTREAM if not DATASETS[name].download])
def test_what_cannot_be_downloaded_says_where_to_get_it(name, root):
    message = error_of(name, root, get)
    assert message.endswith(
        f"; it cannot be downloaded from here: get {DATASETS[name].origin}, unpack it in {root}"
    )
    assert error_of(name, root).endswith(f"; get {DATASETS[name].origin}")


def test_folder_that_cannot_be_read_is_one_line(root, monkeypatch):
    miniatures.build("Flowers", root, monkeypatch)

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "listdir", refuse)
    assert error_of("Flowers", root) == f"cannot read {root / 'jpg'}: Permission denied"


# Caltech-101


@pytest.mark.parametrize("above", ["caltech101", "caltech-101"])
def test_caltech_below_the_folders_of_torchvision_and_of_the_archive(above, root):
    miniatures.build("Caltech-101", root / above)
    assert len(find("Caltech-101", root).classes) == 3
    (root / above / "101_ObjectCategories").rename(root / "other name")
    assert len(find("Caltech-101", root / "other name").classes) == 3


@pytest.mark.parametrize(("count", "train"), [(2, 1), (5, 4), (30, 29), (31, 30), (800, 30)])
def test_thirty_images_of_a_class_train_and_at_least_one_validates(count, train, root):
    miniatures.build("Caltech-101", root)
    for i in range(count):
        miniatures.put(root / "101_ObjectCategories/yin_yang" / f"image_{i:04d}.jpg")
    splits = find("Caltech-101", root)
    assert [part.labels.count(3) for part in (splits.train, splits.val)] == [train, count - train]


def test_class_of_one_image_trains_and_is_warned_of(root, capsys):
    miniatures.build("Caltech-101", root)
    miniatures.put(root / "101_ObjectCategories/yin_yang/image_0001.jpg")
    splits = find("Caltech-101", root)
    assert (splits.train.labels.count(3), splits.val.labels.count(3)) == (1, 0)
    assert "101_ObjectCategories has no images of class yin_yang" in capsys.readouterr().err


# CUB-200


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("images", "/Black_footed_Albatross_0009_9", "/gone", "images.txt, line 2: .*/gone.jpg; u"),
        (
            "images",
            "12 003",
            "13 003",
            r"images.txt, line 12: image 13 \(003.* not in .*_split.txt",
        ),
        ("train_test_split", "12 0", "12 2", "split.txt, line 12: expected an ID and 1 or 0, not"),
        ("train_test_split", "12 0", "12", "split.txt, line 12: expected an ID and 1 or 0, not"),
    ],
)
def test_cub_whose_files_disagree(file, old, new, message, root):
    miniatures.build("CUB-200", root)
    edit(root / f"CUB_200_2011/{file}.txt", old, new)
    assert re.search(message, error_of("CUB-200", root))


@pytest.mark.parametrize("labels", ["from 1", "from 0", "with a gap", "none"])
def test_labels_of_cub_are_the_positions_of_its_folders(labels, root):
    miniatures.build("CUB-200", root)
    file = root / "CUB_200_2011/image_class_labels.txt"
    if labels == "from 0":
        miniatures.write(file, *(f"{i} {(i - 1) // 4}" for i in range(1, 13)))
    elif labels == "with a gap":
        edit(file, "12 3", "12 201")
    elif labels == "none":
        file.unlink()
        (root / "CUB_200_2011/classes.txt").unlink()
    check("CUB-200", root, root)


def test_cub_without_its_split_is_answered_with_the_name_of_the_file(root):
    miniatures.build("CUB-200", root)
    file = root / "CUB_200_2011/train_test_split.txt"
    file.unlink()
    assert f"{file} is missing; unpack the archive again" in error_of("CUB-200", root)
    file.mkdir()
    assert f"{file}: Is a directory" in error_of("CUB-200", root)
    file.rmdir()
    file.write_text("\n")
    assert f"{file} is empty: expected a line per image" in error_of("CUB-200", root)


def test_lists_written_on_windows_are_read(root):
    miniatures.build("CUB-200", root)
    for file in (root / "CUB_200_2011").glob("*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    check("CUB-200", root, root)


# Aircraft


def test_aircraft_has_paths_and_labels_of_torchvision_and_a_class_with_a_slash(root):
    miniatures.build("Aircraft", root)
    splits = find("Aircraft", root)
    assert splits.classes == ["707-320", "DR-400", "F/A-18"]
    for split, part in (("trainval", splits.train), ("test", splits.val)):
        official = torchvision.datasets.FGVCAircraft(root, split=split)
        assert list(part.images) == official._image_files
        assert list(part.labels) == official._labels
        assert splits.classes == official.classes


def test_aircraft_in_a_folder_of_another_name(root):
    miniatures.build("Aircraft", root)
    (root / "fgvc-aircraft-2013b").rename(root / "planes")
    for data_dir in (root / "planes", root / "planes/data"):
        assert len(find("Aircraft", data_dir).train.labels) == 6


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("trainval", " F/A-18", " F/A-19", r"_trainval.txt and .*/variants.txt do not .*'F/A-19'"),
        ("trainval", " F/A-18", "", "_trainval.txt and .*/variants.txt do not fit together"),
        ("test", "1899986", "7", "_test.txt, line 1: there is no image .*/images/7.jpg; unpack"),
    ],
)
def test_aircraft_whose_files_disagree(file, old, new, message, root):
    miniatures.build("Aircraft", root)
    edit(root / f"fgvc-aircraft-2013b/data/images_variant_{file}.txt", old, new)
    assert re.search(message, error_of("Aircraft", root))


def test_aircraft_without_a_list_or_a_variant(root):
    miniatures.build("Aircraft", root)
    data = root / "fgvc-aircraft-2013b/data"
    edit(data / "variants.txt", "DR-400", "DR-400\nDH-82")
    assert "trainval.txt has no images of class DH-82; every class" in error_of("Aircraft", root)
    (data / "images_variant_test.txt").unlink()
    assert f"{data}/images_variant_test.txt is missing; unpack" in error_of("Aircraft", root)


# Flowers


def test_flat_flowers_are_seventeen_classes_of_eighty(root):
    miniatures.build("Flowers", root)
    splits = find("Flowers", root)
    assert splits.classes[::16] == ["daffodil", "pansy"]
    assert len(set(splits.classes)) == 17
    for part, count in ((splits.train, 64), (splits.val, 16)):
        assert [part.labels.count(label) for label in range(17)] == [count] * 17
        numbers = [int(Path(path).stem[-4:]) for path in part.images]
        assert [(number - 1) // 80 for number in numbers] == list(part.labels)


def test_flat_flowers_with_other_files(root):
    miniatures.build("Flowers", root)
    jpg = root / "jpg"
    (jpg / "image_0007.jpg").rename(jpg / "image_0007.JPG")
    (jpg / "._image_0001.jpg").write_text("")
    assert len(find("Flowers", root).train.labels) == 1088
    (jpg / "image_0007.JPG").unlink()
    assert f"{jpg} lacks image_0007.jpg of the 1,360 images" in error_of("Flowers", root)
    (jpg / "image_0003.jpg").unlink()
    assert f"{jpg} lacks image_0003.jpg and 1 more of the 1,360" in error_of("Flowers", root)
    miniatures.put(jpg / "image_1361.jpg")
    message = error_of("Flowers", root)
    assert (
        f"{jpg} holds image_1361.jpg, but the 17 flowers are image_0001.jpg to image_1" in message
    )


def test_102_flowers_are_refused(root):
    for i in range(1, 11):
        miniatures.put(root / f"jpg/image_{i:05d}.jpg")
    message = error_of("Flowers", root)
    assert "holds image_00001.jpg, but the 17 flowers are" in message
    assert "the 102 flowers are another data set" in message


@pytest.mark.parametrize("above", ["", "jpg", "17flowers", "17flowers/jpg"])
def test_flowers_in_class_folders(above, root):
    for kind in ("tulip", "pansy"):
        for i in range(10):
            miniatures.put(root / above / kind / f"image_{i:04d}.jpg")
    splits = find("Flowers", root)
    assert splits.classes == ["pansy", "tulip"]
    names = [[f"{kind}/image_{i:04d}.jpg" for i in range(10)] for kind in splits.classes]
    for which, part in enumerate((splits.train, splits.val)):
        files = [(name, label) for label in (0, 1) for name in fifth(names[label])[which]]
        assert pairs(part, root / above) == files


@pytest.mark.parametrize("name", ["Flowers", "POCUS", "Land-Use"])
@pytest.mark.parametrize("val", ["val", "test"])
def test_split_that_is_there_is_taken(name, val, root):
    for kind in "ab":
        for part in ("train", val):
            miniatures.put(root / part / kind / f"{part}.png")
    splits = find(name, root)
    assert pairs(splits.train, root) == [("train/a/train.png", 0), ("train/b/train.png", 1)]
    assert pairs(splits.val, root) == [(f"{val}/a/{val}.png", 0), (f"{val}/b/{val}.png", 1)]


# DTD


def test_textures_as_torchvision_unpacks_them(root):
    miniatures.build("DTD", root / "dtd")
    for data_dir in (root, root / "dtd", root / "dtd/dtd", root / "dtd/dtd/labels"):
        check("DTD", data_dir, root / "dtd")


def test_textures_whose_lists_disagree_with_the_images(root):
    miniatures.build("DTD", root)
    test = root / "dtd/labels/test1.txt"
    edit(test, "blotchy/blotchy_0000", "knitted/knitted_0000")
    image = root / "dtd/images/knitted/knitted_0000.jpg"
    assert f"{test}, line 2: there is no image {image}; unpack" in error_of("DTD", root)
    miniatures.put(image)
    message = error_of("DTD", root)
    assert f"{test} has class knitted, which {root}/dtd/labels/train1.txt lacks" in message
    test.unlink()
    assert f"{test} is missing; unpack" in error_of("DTD", root)


# DomainNet


def test_domain_whose_lists_lie_in_its_folder(root):
    miniatures.build("DomainNet-r", root)
    for part in ("train", "test"):
        (root / f"real_{part}.txt").rename(root / f"real/real_{part}.txt")
    for data_dir in (root, root / "real"):
        check("DomainNet-r", data_dir, root)


def test_domains_side_by_side_are_not_mixed_up(root):
    for name in miniatures.DOMAINS:
        miniatures.build(name, root / "DomainNet")
    for name in miniatures.DOMAINS:
        check(name, root, root / "DomainNet")


def test_folders_not_label_numbers_give_the_order_of_the_classes(root):
    miniatures.build("DomainNet-c", root)
    for part in ("train", "test"):
        file = root / f"clipart_{part}.txt"
        lines = [line.split() for line in file.read_text().splitlines()]
        miniatures.write(file, *(f"{path} {7 - 3 * int(label)}" for path, label in lines))
    check("DomainNet-c", root, root)


def test_class_that_a_domain_only_tests_or_only_trains(root, capsys):
    miniatures.build("DomainNet-r", root)
    test = root / "real_test.txt"
    test.write_text("".join(test.read_text().splitlines(keepends=True)[:2]))
    assert find("DomainNet-r", root).classes == miniatures.OBJECTS
    assert "real_test.txt has no images of class alarm_clock" in capsys.readouterr().err
    miniatures.build("DomainNet-r", root)
    train = root / "real_train.txt"
    train.write_text("".join(train.read_text().splitlines(keepends=True)[:6]))
    message = error_of("DomainNet-r", root)
    assert f"real_test.txt has class alarm_clock, which {train} lacks" in message


def test_domain_without_lists_or_without_images(root):
    miniatures.build("DomainNet-r", root)
    (root / "real_test.txt").unlink()
    message = error_of("DomainNet-r", root)
    assert f"{root}/real_test.txt is missing: the lists" in message
    assert "are separate downloads beside real.zip; put them there" in message
    miniatures.build("DomainNet-r", root)
    for path in (root / "real").rglob("*.jpg"):
        path.unlink()
    message = error_of("DomainNet-r", root)
    assert re.search(
        "real_train.txt, line 1: there is no image .*, nor 8 others that it lis", message
    )


# Download


def downloads(monkeypatch, name, *, fail=None, meanwhile=None):
    """Make torchvision's download write the miniature and the archive; returns the calls.

    fail: raised after the archive is half written. meanwhile: called before the files are there.
    """
    calls = []

    def fetch(url, download_root, extract_root=None, filename=None, md5=None, **options):
        folder = Path(download_root)
        calls.append(folder)
        folder.mkdir(parents=True, exist_ok=True)
        archive = folder / (filename or os.path.basename(url))
        archive.write_bytes(b"half an archive")
        if fail is not None:
            raise fail
        if meanwhile is not None:
            meanwhile()
        if name == "Caltech-101":
            with tarfile.open(folder / "inner.tar.gz", "w:gz") as file:
                miniatures.build("Caltech-101", folder / "inner")
                file.add(folder / "inner/101_ObjectCategories", "101_ObjectCategories")
            (folder / "caltech-101").mkdir()
            (folder / "inner.tar.gz").rename(folder / "caltech-101/101_ObjectCategories.tar.gz")
        elif name.startswith("CIFAR"):
            miniatures.cifar(name, folder, monkeypatch)
        else:
            miniatures.build(name, folder, monkeypatch)

    modules = {"CIFAR-10": "cifar", "CIFAR-100": "cifar", "Caltech-101": "caltech"}
    modules |= {"Aircraft": "fgvc_aircraft", "DTD": "dtd"}
    module = f"torchvision.datasets.{modules[name]}.download_and_extract_archive"
    monkeypatch.setattr(module, fetch)
    return calls


DOWNLOADED = [name for name in DOWNSTREAM if DATASETS[name].download]
FOLDERS = {
    "CIFAR-10": "cifar-10-batches-py",
    "CIFAR-100": "cifar-100-python",
    "Caltech-101": "caltech101",
    "Aircraft": "fgvc-aircraft-2013b",
    "DTD": "dtd",
}


def test_those_that_torchvision_can_are_downloaded():
    assert set(DOWNLOADED) == set(FOLDERS)


@pytest.mark.parametrize("name", DOWNLOADED)
def test_download_puts_the_data_where_they_are_found(name, root, monkeypatch):
    calls = downloads(monkeypatch, name)
    data_dir = root / "new/data"
    splits = get(name, data_dir)
    assert sorted(os.listdir(data_dir)) == [FOLDERS[name]]
    assert not [path for path in miniatures.members(data_dir) if path.endswith((".gz", ".zip"))]
    assert len(calls) == 1
    again = get(name, data_dir)
    assert len(calls) == 1
    assert again.classes == splits.classes
    assert find(name, data_dir / FOLDERS[name]).classes == splits.classes


def test_fine_tuning_downloads(root, theta_a, tmp_path, monkeypatch):
    calls = downloads(monkeypatch, "DTD")
    record = tune("DTD", root / "new", theta_a, tmp_path, "--download")
    assert len(calls) == 1
    assert record["train_images"] > 0


@pytest.mark.parametrize("name", DOWNLOADED)
def test_what_is_there_is_not_downloaded(name, root, monkeypatch):
    miniatures.build(name, root, monkeypatch)
    calls = downloads(monkeypatch, name)
    get(name, root)
    assert calls == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (urllib.error.URLError(OSError(-2, "Name or service not known")), "Name or service not"),
        (urllib.error.HTTPError("u", 404, "Not Found", {}, None), "Not Found"),
        (RuntimeError("File not found\nor corrupted."), "File not found or corrupted."),
        (tarfile.ReadError("unexpected end of data"), "unexpected end of data"),
        (EOFError(), "EOFError"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_failed_download_is_one_line_and_leaves_nothing_half(error, words, root, monkeypatch):
    downloads(monkeypatch, "DTD", fail=error)
    (root / "notes.txt").write_text("mine")
    message = error_of("DTD", root, get)
    assert message.startswith(f"cannot download DTD to {root}: {words}")
    assert DATASETS["DTD"].origin in message
    assert os.listdir(root) == ["notes.txt"]


def test_interrupted_download_leaves_nothing(root, monkeypatch):
    downloads(monkeypatch, "DTD", fail=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        get("DTD", root)
    assert os.listdir(root) == []


@pytest.mark.parametrize("name", DOWNLOADED)
def test_of_two_downloads_at_once_the_first_stays(name, root, monkeypatch):
    def other_process():
        build = miniatures.build
        target = root / "caltech101" if name == "Caltech-101" else root
        build(name, target if name != "DTD" else root / "dtd", monkeypatch)
        (root / FOLDERS[name] / "first").write_text("")

    downloads(monkeypatch, name, meanwhile=other_process)
    get(name, root)
    assert os.listdir(root) == [FOLDERS[name]]
    assert (root / FOLDERS[name] / "first").exists()


def test_something_in_the_way_of_a_download_is_named(root, monkeypatch):
    downloads(monkeypatch, "DTD")
    (root / "dtd").mkdir()
    (root / "dtd/thesis.txt").write_text("")
    message = error_of("DTD", root, get)
    assert "DTD has been downloaded, but is not found in" in message
    assert os.listdir(root / "dtd") == ["thesis.txt"]


def test_download_into_a_file_is_refused(root, monkeypatch):
    calls = downloads(monkeypatch, "DTD")
    (root / "file").write_text("")
    assert "cannot download DTD to" in error_of("DTD", root / "file", get)
    assert calls == []
