"""Data sets whose archives say in text files which images train and which validate.

CUB-200, Aircraft, DTD and the domains of DomainNet. Every reader raises InputError, naming file,
line and image, where the text files disagree with each other or with the images.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from console import InputError

from .folder import Found, match
from .lists import check_images, read_lines

CUB_TOPS = ("CUB_200_2011", "")
AIRCRAFT_FOLDER = "fgvc-aircraft-2013b"
# torchvision downloads to dtd/dtd.
DTD_TOPS = ("dtd", "dtd/dtd", "")
DOMAINNET_TOPS = ("", "DomainNet", "domainnet")


def first_with(marker: str, root: Path, tops: Sequence[str]) -> Path | None:
    """The first of the folders `tops` in `root` that holds `marker`."""
    return next((root / top for top in tops if os.path.exists(root / top / marker)), None)


# CUB-200


def locate_cub(root: Path) -> Path | None:
    """The folder of images.txt."""
    return first_with("images.txt", root, CUB_TOPS)


def read_cub(root: Path) -> Found | None:
    """Read CUB-200-2011 in its official split.

    images.txt, image_class_labels.txt and train_test_split.txt have lines `ID VALUE`: a path, a
    label from 1, and 1 for training. Classes are named by classes.txt, without it by the folders.
    """
    top = locate_cub(root)
    if top is None:
        return None
    images, labels, parts = (
        read_table(top / f"{name}.txt")
        for name in ("images", "image_class_labels", "train_test_split")
    )
    for table in (labels, parts):
        same_keys(images, table)
    folder = top / "images"
    check_images(images.file, ((n, os.path.join(folder, path)) for n, path in images.rows.values()))
    train: list[Entry] = []
    val: list[Entry] = []
    for key, (_, path) in images.rows.items():
        line, label = labels.rows[key]
        place, part = parts.rows[key]
        if part not in ("0", "1"):
            raise InputError(f"{parts.file}, line {place}: {part!r} must be 1 (training) or 0")
        label = whole_number(label, labels.file, line)
        (train if part == "1" else val).append(Entry(line, os.path.join(folder, path), label))
    names = names_of_labels({labels.file: train + val}, first=1, table=top / "classes.txt")
    return match(
        f"the training part of {parts.file}",
        by_class(names, train),
        f"the validation part of {parts.file}",
        by_class(names, val),
    )


class Table(NamedTuple):
    """A text file of lines `KEY VALUE`; rows: key -> (line number, value)."""

    file: Path
    rows: dict[str, tuple[int, str]]


def read_table(file: Path) -> Table:
    """Read lines `KEY VALUE`, whose keys must differ."""
    rows: dict[str, tuple[int, str]] = {}
    for line, text in read_lines(file):
        key, value = [*text.split(maxsplit=1), ""][:2]
        if not value:
            raise InputError(f"{file}, line {line}: expected a number and a value, not {text!r}")
        if key in rows:
            raise InputError(f"{file}, line {line}: number {key} is also on line {rows[key][0]}")
        rows[key] = line, value
    return Table(file, rows)


def same_keys(one: Table, other: Table) -> None:
    """Raise InputError, naming the first, if a key of one of the two tables is not in the other."""
    for table, against in ((one, other), (other, one)):
        for key, (line, value) in table.rows.items():
            if key not in against.rows:
                raise InputError(
                    f"{table.file}, line {line}: image {key} ({value}) is not in {against.file}"
                )


# Labels and the names of classes


class Entry(NamedTuple):
    """An image with its label, and the line that gives the label."""

    line: int
    path: str
    label: int


def names_of_labels(
    lists: dict[Path, list[Entry]], *, first: int, table: Path | None = None
) -> dict[int, str]:
    """Label -> class, in the order of the labels: the folder of its images.

    lists: file -> its entries. first: the lowest label. table: a file of lines `LABEL NAME`, which
    names the classes where there is such a file. Raises InputError unless labels and folders go
    together one to one, and the labels are first, first + 1, ...
    """
    official = read_names(table, first=first) if table and table.exists() else None
    folders: dict[int, str] = {}
    labels: dict[str, int] = {}
    for listed, entries in lists.items():
        for line, path, label in entries:
            place = f"{listed}, line {line}"
            if label < first or (official and label not in official):
                to = f" to {first + len(official) - 1}, as in {table}" if official else ""
                raise InputError(
                    f"{place}: label {label} is out of range; labels go from {first}{to}"
                )
            folder = os.path.basename(os.path.dirname(path))
            if folders.setdefault(label, folder) != folder:
                raise InputError(
                    f"{place}: label {label} is of class {folders[label]} before, here of {folder}"
                )
            if labels.setdefault(folder, label) != label:
                raise InputError(
                    f"{place}: class {folder} has label {labels[folder]} before, here {label}"
                )
    if official:
        return official
    for label in range(first, first + len(folders)):
        if label not in folders:
            raise InputError(
                f"{' and '.join(map(str, lists))}: no image has label {label}, although labels go "
                f"up to {max(folders)}"
            )
    return dict(sorted(folders.items()))


def read_names(file: Path, *, first: int) -> dict[int, str]:
    """Label -> class, of a file of lines `LABEL NAME`: labels first, first + 1, ..., own names."""
    rows = read_table(file).rows
    names = {whole_number(key, file, line): name for key, (line, name) in rows.items()}
    gapless = sorted(names) == list(range(first, first + len(rows)))
    if not gapless or len(set(names.values())) < len(rows):
        raise InputError(f"{file}: expected different classes, numbered from {first} without gaps")
    return dict(sorted(names.items()))


def by_class(names: dict[int, str], entries: list[Entry]) -> dict[str, list[str]]:
    """Class -> its paths, for all classes in the order of `names`."""
    images: dict[str, list[str]] = {name: [] for name in names.values()}
    for _, path, label in entries:
        images[names[label]].append(path)
    return images


def whole_number(text: str, file: Path, line: int) -> int:
    """The number that the text is; InputError for anything else."""
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{file}, line {line}: the label {text!r} is not a whole number")
    return int(text)


# Aircraft


def locate_aircraft(root: Path) -> Path | None:
    """The folder that holds data/variants.txt."""
    top = first_with("data/variants.txt", root, (AIRCRAFT_FOLDER, ""))
    own = Path(os.path.abspath(root))
    if top is None and own.name == "data" and (own / "variants.txt").exists():
        return own.parent
    return top


def read_aircraft(root: Path) -> Found | None:
    """Read FGVC-Aircraft, variants, by torchvision: trainval trains, test validates."""
    top = locate_aircraft(root)
    if top is None:
        return None
    (train_list, train), (val_list, val) = (
        read_variants(top, part) for part in ("trainval", "test")
    )
    return match(train_list, train, val_list, val)


def read_variants(top: Path, part: str) -> tuple[Path, dict[str, list[str]]]:
    """The list of one part, and its images: variant -> paths."""
    from torchvision.datasets import FGVCAircraft

    class Aircraft(FGVCAircraft):
        # torchvision's folder has a fixed name; this one may have any.
        _data_path = property(lambda self: str(top), lambda self, path: None)

    listed = top / "data" / f"images_variant_{part}.txt"
    try:
        aircraft = Aircraft(top, split=part)
    except (OSError, LookupError, ValueError) as error:
        raise InputError(unknown_variant(listed, top / "data" / "variants.txt")) from error
    check_images(listed, enumerate(aircraft._image_files, start=1))
    images: dict[str, list[str]] = {name: [] for name in aircraft.classes}
    for path, label in zip(aircraft._image_files, aircraft._labels, strict=True):
        images[aircraft.classes[label]].append(path)
    return listed, images


def unknown_variant(listed: Path, variants: Path) -> str:
    """Say which line of a list torchvision cannot read."""
    known = {name for _, name in read_lines(variants)}
    for line, text in read_lines(listed):
        if text.partition(" ")[2] not in known:
            return f"{listed}, line {line}: expected an image and a variant of {variants}: {text!r}"
    return f"{listed} or {variants} is damaged (an empty line?); unpack the archive again"


def download_aircraft(root: Path) -> None:
    """Get the archive by torchvision, and unpack it in `root`."""
    from torchvision.datasets import FGVCAircraft

    FGVCAircraft(root, download=True)


# DTD


def locate_dtd(root: Path) -> Path | None:
    """The folder of images and labels."""
    return first_with("labels", root, DTD_TOPS)


def read_dtd(root: Path) -> Found | None:
    """Read the textures in partition 1: labels/train1.txt trains, labels/test1.txt validates."""
    top = locate_dtd(root)
    if top is None:
        return None
    train, val = (top / "labels" / f"{part}1.txt" for part in ("train", "test"))
    return match(train, read_textures(train, top), val, read_textures(val, top))


def read_textures(listed: Path, top: Path) -> dict[str, list[str]]:
    """Class -> paths, of a list of lines `CLASS/IMAGE`."""
    entries = [(line, os.path.join(top, "images", text)) for line, text in read_lines(listed)]
    check_images(listed, entries)
    images: dict[str, list[str]] = {}
    for _, path in entries:
        images.setdefault(os.path.basename(os.path.dirname(path)), []).append(path)
    return dict(sorted(images.items()))


def download_dtd(root: Path) -> None:
    """Get the archive by torchvision, which unpacks it to dtd/dtd."""
    from torchvision.datasets import DTD

    DTD(root, download=True)
    # 600 MB that nobody needs any more; the archives of the others lie outside of what is kept.
    for archive in (root / "dtd").glob("*.tar.gz"):
        archive.unlink()


# DomainNet


def locate_domain(domain: str, root: Path) -> Path | None:
    """The folder that holds the folder of the domain; `root` may be the latter."""
    top = first_with(domain, root, DOMAINNET_TOPS)
    own = Path(os.path.abspath(root))
    return own.parent if top is None and own.name == domain and own.is_dir() else top


def read_domain(domain: str, root: Path) -> Found | None:
    """Read a domain of DomainNet: DOMAIN_train.txt and DOMAIN_test.txt, beside its folder or in it.

    Their lines are `DOMAIN/CLASS/IMAGE LABEL`, labels from 0.
    """
    top = locate_domain(domain, root)
    if top is None:
        return None
    train_list, val_list = (domain_list(domain, part, top) for part in ("train", "test"))
    train, val = (read_labelled(listed, top) for listed in (train_list, val_list))
    names = names_of_labels({train_list: train, val_list: val}, first=0)
    return match(train_list, by_class(names, train), val_list, by_class(names, val))


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


def read_labelled(listed: Path, top: Path) -> list[Entry]:
    """The entries of a list of lines `PATH LABEL`."""
    entries = []
    for line, text in read_lines(listed):
        path, label = ["", *text.rsplit(maxsplit=1)][-2:]
        entries.append(Entry(line, os.path.join(top, path), whole_number(label, listed, line)))
    check_images(listed, ((line, path) for line, path, _ in entries))
    return entries
