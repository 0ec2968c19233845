"""CIFAR-10 and CIFAR-100, read by torchvision: the official batches, or class folders."""

import os
import tempfile
from pathlib import Path

from console import InputError

from .folder import Found, Samples, read_pair


def read(kind: str, root: Path) -> Found | None:
    """Read CIFAR10 or CIFAR100 (`kind`): the official batches, their archive, or class folders.

    `root` may be the folder of the batches, hold it, hold the .tar.gz (unpacked there once), or
    hold train/CLASS and test/CLASS. Nothing is downloaded. Raises InputError if a file is not the
    official one by torchvision's MD5 sums.
    """
    cifar = torchvision_class(kind)
    folder = batches(cifar, root)
    if folder is not None:
        return read_batches(cifar, folder)
    archive = root / cifar.filename
    if archive.is_file():
        unpack(archive, cifar)
        return read_batches(cifar, root / cifar.base_folder)
    if (root / "train").is_dir() and (root / "test").is_dir():
        return read_pair(root / "train", root / "test")
    return None


def locate(kind: str, root: Path) -> Path | None:
    """Where the data lie; None when `root` holds nothing that `read` knows."""
    cifar = torchvision_class(kind)
    folders = (root / "train").is_dir() and (root / "test").is_dir()
    packed = (root / cifar.filename).is_file()
    return batches(cifar, root) or (root if folders or packed else None)


def download(kind: str, root: Path) -> None:
    """Get the official archive and unpack it in `root`."""
    torchvision_class(kind)(root, download=True)


def torchvision_class(kind: str) -> type:
    """torchvision's data set; imported late, since it takes a second."""
    from torchvision import datasets

    return getattr(datasets, kind)


def batches(cifar: type, root: Path) -> Path | None:
    """The folder with any of the official batches: one in `root`, or `root` itself."""
    for folder in (root / cifar.base_folder, root):
        if any((folder / name).is_file() for name in md5_sums(cifar)):
            return folder
    return None


def read_batches(cifar: type, folder: Path) -> Found:
    """Read the batches in `folder` through torchvision's class, which checks their MD5 sums."""
    # With an empty base folder the batches may lie in a folder of any name.
    here = type(cifar.__name__, (cifar,), {"base_folder": ""})
    try:
        train, val = here(folder, train=True), here(folder, train=False)
    except RuntimeError as error:
        raise InputError(
            f"{first_damaged(cifar, folder)}; remove {folder} and unpack {cifar.filename} again"
        ) from error
    return Found(
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
    """Unpack the official archive beside itself: whole or not at all."""
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
