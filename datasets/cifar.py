"""CIFAR-10 and CIFAR-100, read by torchvision: the official batches, or class folders."""

import os
import tempfile
from pathlib import Path

from console import InputError

from .folder import TEST, TRAIN, VAL, Samples, Splits, named, named_splits, read_pair
from .listing import sub_folders


def is_cifar(kind: str, top: Path) -> bool:
    """Whether the folder holds what `read` reads."""
    cifar = torchvision_class(kind)
    return has_batches(cifar, top) or (top / cifar.filename).is_file() or has_folders(top)


def read(kind: str, top: Path) -> Splits:
    """Read CIFAR10 or CIFAR100 (`kind`) from the folder of its batches, or the one above it.

    That may hold the .tar.gz, which is unpacked there once, or train/CLASS and test/CLASS. Raises
    InputError if a file is not the official one by torchvision's MD5 sums.
    """
    cifar = torchvision_class(kind)
    if has_batches(cifar, top):
        return read_batches(cifar, top)
    archive = top / cifar.filename
    if archive.is_file():
        unpack(archive, cifar)
        return read_batches(cifar, top / cifar.base_folder)
    splits = read_pair(top / "train", top / "test")
    others = named(sub_folders(top), *TRAIN, *VAL, *TEST)
    return splits._replace(note=named_splits(top, others, ["train"], "test", usual="test"))


def torchvision_class(kind: str) -> type:
    """torchvision's data set; imported late, since that takes a second."""
    from torchvision import datasets

    return getattr(datasets, kind)


def has_batches(cifar: type, folder: Path) -> bool:
    """Whether any of the official batches lies in the folder; `read_batches` names missing ones."""
    return any((folder / name).is_file() for name in md5_sums(cifar))


def has_folders(folder: Path) -> bool:
    """Whether the folders train and test lie in the folder."""
    return (folder / "train").is_dir() and (folder / "test").is_dir()


def read_batches(cifar: type, folder: Path) -> Splits:
    """Read the batches in `folder` through torchvision's class, which checks their MD5 sums."""
    # With an empty base folder the batches may lie in a folder of any name.
    here = type(cifar.__name__, (cifar,), {"base_folder": ""})
    try:
        train, val = here(folder, train=True), here(folder, train=False)
    except RuntimeError as error:
        raise InputError(
            f"{first_damaged(cifar, folder)}; remove {folder} and unpack {cifar.filename} again"
        ) from error
    return Splits(
        list(train.classes), Samples(train.data, train.targets), Samples(val.data, val.targets)
    )


def md5_sums(cifar: type) -> dict[str, str]:
    """File name -> MD5 sum, of all files in the folder of the batches."""
    return dict([*cifar.train_list, *cifar.test_list, (cifar.meta["filename"], cifar.meta["md5"])])


def first_damaged(cifar: type, folder: Path) -> str:
    """Say which file is missing or is not the official one."""
    from torchvision.datasets.utils import check_integrity

    for name, md5 in md5_sums(cifar).items():
        if not check_integrity(folder / name, md5):
            damaged = (folder / name).exists()
            return f"{folder / name} is {'damaged (by its MD5 sum)' if damaged else 'missing'}"
    return f"{folder} is damaged"


def unpack(archive: Path, cifar: type) -> None:
    """Unpack the official archive into its own folder: whole or not at all."""
    from torchvision.datasets.utils import check_integrity, extract_archive

    if not check_integrity(archive, cifar.tgz_md5):
        raise InputError(
            f"{archive} is damaged or incomplete (by its MD5 sum); get it again from {cifar.url}"
        )
    target = archive.parent / cifar.base_folder
    try:
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".unpacking-") as temporary:
            extract_archive(str(archive), temporary)
            os.rename(Path(temporary) / cifar.base_folder, target)
    except OSError as error:
        # Another process may have been faster.
        if not target.is_dir():
            raise InputError(f"cannot unpack {archive}: {error.strerror or error}") from error
