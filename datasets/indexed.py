"""Data sets whose text files list the training and the validation images.

CUB-200, Aircraft, DTD and the domains of DomainNet. The class of an image is the folder it lies in,
but for Aircraft, whose lists name it; label numbers of the archives are not used. Every reader
raises InputError, naming file and line, for lists that do not fit together or name images that are
not there.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from console import InputError

from .folder import Splits, match
from .listing import cannot_list


def read_cub(top: Path) -> Splits:
    """Read CUB-200-2011 in its official split.

    images.txt has lines `ID PATH`, train_test_split.txt `ID 1` for training and `ID 0` otherwise.
    """
    images, parts = top / "images.txt", top / "train_test_split.txt"
    part_of = {}
    for line, text in read_lines(parts):
        key, part = [*text.split(maxsplit=1), ""][:2]
        if part not in ("0", "1"):
            raise InputError(f"{parts}, line {line}: expected an ID and 1 or 0, not {text!r}")
        part_of[key] = part
    listed: dict[str, list[tuple[int, str]]] = {"0": [], "1": []}
    for line, text in read_lines(images):
        key, path = [*text.split(maxsplit=1), ""][:2]
        if key not in part_of:
            raise InputError(f"{images}, line {line}: image {key} ({path}) is not in {parts}")
        listed[part_of[key]].append((line, path))
    train, val = (by_folder(images, top / "images", listed[part]) for part in ("1", "0"))
    return match(f"the training part of {parts}", train, f"the validation part of {parts}", val)


def read_aircraft(top: Path) -> Splits:
    """Read FGVC-Aircraft, variants: trainval trains, test validates."""
    train, val = (top / "data" / f"images_variant_{part}.txt" for part in ("trainval", "test"))
    return match(train, by_variant(train, top, "trainval"), val, by_variant(val, top, "test"))


def by_variant(file: Path, top: Path, part: str) -> dict[str, list[str]]:
    """Variant -> paths of the images of one part, which `file` lists, as torchvision reads them."""
    from torchvision.datasets import FGVCAircraft

    class Aircraft(FGVCAircraft):
        # torchvision's folder has a fixed name; this one may have any.
        _data_path = property(lambda self: str(top), lambda self, path: None)

    try:
        aircraft = Aircraft(top, split=part)
    except FileNotFoundError as error:
        raise is_missing(error.filename) from error
    # A variant that variants.txt lacks, or a line without one.
    except (LookupError, ValueError) as error:
        variants = top / "data/variants.txt"
        raise InputError(
            f"{file} and {variants} do not fit together ({error}); unpack the archive again"
        ) from error
    check_images(file, enumerate(aircraft._image_files, start=1))
    images: dict[str, list[str]] = {name: [] for name in aircraft.classes}
    for path, label in zip(aircraft._image_files, aircraft._labels, strict=True):
        images[aircraft.classes[label]].append(path)
    return images


def read_dtd(top: Path) -> Splits:
    """Read the textures in partition 1: labels/train1.txt trains, labels/test1.txt validates.

    Their lines are `CLASS/IMAGE`.
    """
    train, val = (top / f"labels/{part}1.txt" for part in ("train", "test"))
    train_images, val_images = (
        by_folder(file, top / "images", read_lines(file)) for file in (train, val)
    )
    return match(train, train_images, val, val_images)


def read_domain(domain: str, top: Path) -> Splits:
    """Read a domain of DomainNet: DOMAIN_train.txt and DOMAIN_test.txt, beside its folder or in it.

    Their lines are `DOMAIN/CLASS/IMAGE LABEL`.
    """
    train, val = (domain_list(domain, part, top) for part in ("train", "test"))
    train_images, val_images = (
        by_folder(file, top, ((n, text.rsplit(maxsplit=1)[0]) for n, text in read_lines(file)))
        for file in (train, val)
    )
    return match(train, train_images, val, val_images)


def domain_list(domain: str, part: str, top: Path) -> Path:
    """The file that lists one part of a domain."""
    name = f"{domain}_{part}.txt"
    for path in (top / name, top / domain / name):
        if path.is_file():
            return path
    raise InputError(
        f"{top / name} is missing: the lists {domain}_train.txt and {domain}_test.txt are separate "
        f"downloads beside {domain}.zip; put them there"
    )


# Lists of images


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(number from 1, text) of every line that is not blank; InputError if there is none."""
    try:
        # Names of files need not be valid UTF-8; such bytes are kept as os.listdir keeps them.
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = [(number, line.rstrip()) for number, line in enumerate(file, start=1)]
    except FileNotFoundError:
        raise is_missing(path) from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    lines = [(number, text) for number, text in lines if text]
    if not lines:
        raise InputError(f"{path} is empty: expected a line per image")
    return lines


def is_missing(path: str | Path) -> InputError:
    """The error for a list that is not there."""
    return InputError(f"{path} is missing; unpack the archive again")


def by_folder(file: Path, folder: Path, listed: Iterable[tuple[int, str]]) -> dict[str, list[str]]:
    """Class -> paths of the images that `file` lists; classes are the names of their folders.

    listed: number of the line, and path below `folder`.
    """
    entries = [(line, os.path.join(folder, path)) for line, path in listed]
    check_images(file, entries)
    images: dict[str, list[str]] = {}
    for _, path in entries:
        images.setdefault(os.path.basename(os.path.dirname(path)), []).append(path)
    return dict(sorted(images.items()))


def check_images(file: Path, listed: Iterable[tuple[int, str]]) -> None:
    """Raise InputError, naming the first, unless all images that `file` lists exist.

    listed: number of the line, and path. Every folder is listed once: asking for 100,000 files one
    by one takes minutes on a network disk.
    """
    present: dict[str, set[str]] = {}
    missing = []
    for number, path in listed:
        folder, name = os.path.split(path)
        if folder not in present:
            present[folder] = names_in(folder)
        if name not in present[folder]:
            missing.append((number, path))
    if missing:
        number, path = missing[0]
        more = f", nor {len(missing) - 1} others that it lists" if len(missing) > 1 else ""
        raise InputError(
            f"{file}, line {number}: there is no image {path}{more}; unpack the archive again"
        )


def names_in(folder: str) -> set[str]:
    """Names of all that lies in the folder; none where there is no folder."""
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        cannot_list(error)
