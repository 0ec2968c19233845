"""Look at a whole data set before a long run: counts, unreadable images, odd files, duplicates."""

import contextlib
import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from console import InputError, say

from . import DATASETS, find, full_name
from .folder import Found, Samples
from .images import ImageFiles, Unreadable, read_file
from .loader import MAX_UNREADABLE
from .progress import Progress
from .workers import in_chunks, in_processes

# Images that a process takes at a time.
CHUNK = 16
MAX_LISTED = 3


class Facts(NamedTuple):
    """What is seen of the image at a place of its split.

    reason: why it cannot be read; None for one that can. mode: PIL's. misnamed: the format of a
    file whose extension says another. digest: of the file, or of the pixels in memory.
    """

    place: int
    reason: str | None = None
    mode: str = "RGB"
    misnamed: str | None = None
    digest: bytes = b""


class Split:
    """What is seen of the images of one split."""

    def __init__(self, name: str, samples: Samples) -> None:
        self.name = name
        self.images = samples.images
        self.labels = samples.labels
        self.unreadable: dict[str, str] = {}
        self.unreadable_of_class: Counter[int] = Counter()
        self.misnamed: dict[str, str] = {}
        self.modes: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.labels)

    def add(self, facts: Facts) -> None:
        """Count one image."""
        if facts.reason is not None:
            self.unreadable[self.where(facts.place)] = facts.reason
            self.unreadable_of_class[int(self.labels[facts.place])] += 1
            return
        self.modes[facts.mode] += 1
        if facts.misnamed:
            self.misnamed[self.where(facts.place)] = facts.misnamed

    def where(self, place: int) -> str:
        """The path of an image, or its number where it has none."""
        return f"{self.name} image {place}" if self.in_memory() else self.images[place]

    def in_memory(self) -> bool:
        """Whether the images are pixels and not files."""
        return isinstance(self.images, np.ndarray)

    def names(self) -> list[str]:
        """The file names, without folders."""
        return [] if self.in_memory() else [os.path.basename(path) for path in self.images]


def check(name: str, data_dir: Path, *, workers: int) -> None:
    """Print what the data set is like.

    workers: processes; 0: this one does it. Raises InputError for what training would refuse:
    at once for what `find` does, after the table for unreadable images.
    """
    name = full_name(name)
    found = find(name, data_dir)
    train, val = Split("training", found.train), Split("validation", found.val)
    size = DATASETS[name].image_size
    # Digests are kept of the smaller split only: digest -> places.
    contents: dict[bytes, list[int]] = {}
    twins: dict[int, list[int]] = {}
    for facts in look(val, size, workers):
        val.add(facts)
        if facts.reason is None:
            contents.setdefault(facts.digest, []).append(facts.place)
    for facts in look(train, size, workers):
        train.add(facts)
        if facts.digest in contents:
            twins[facts.place] = contents[facts.digest]

    say(f"{name} in {data_dir}")
    print_counts(found, DATASETS[name].published)
    print_splits(train, val, twins, found.classes)
    print_examples(train, val, twins, data_dir)
    for split in (train, val):
        refuse_unreadable(split, found.classes)
    say("nothing here that training would refuse")


def look(split: Split, image_size: int, workers: int) -> Iterator[Facts]:
    """Facts about every image of a split, in any order."""
    with Progress(len(split), f"check, {split.name}", lines=False) as progress:
        if split.in_memory():
            for place, pixels in enumerate(split.images):
                yield Facts(place, digest=digest(pixels.tobytes()))
                progress.add(1)
            return
        work = partial(look_at_files, image_size=image_size)
        chunks = in_chunks(enumerate(split.images), CHUNK)
        with contextlib.closing(in_processes(work, chunks, workers=workers)) as results:
            for chunk in results:
                yield from chunk
                progress.add(len(chunk))


def look_at_files(files: list[tuple[int, str]], *, image_size: int) -> list[Facts]:
    """Facts about files, each given by its place and path."""
    # The loader's own way to read, so that what it cannot read is unreadable here.
    dataset = ImageFiles([path for _, path in files], [0] * len(files), image_size=image_size)
    return [
        Facts(place, image.reason) if isinstance(image, Unreadable) else look_at_file(place, path)
        for (place, path), image in zip(files, dataset.images(range(len(files))), strict=True)
    ]


def look_at_file(place: int, path: str) -> Facts:
    """Facts about a file that can be decoded."""
    # Once more, but now from the system's cache.
    data = read_file(os.fsencode(path))
    if isinstance(data, OSError):
        return Facts(place, data.strerror or "cannot be read")
    mode, kind = header(data)
    expected = Image.registered_extensions().get(os.path.splitext(path)[1].lower())
    misnamed = None if expected in (None, kind) else kind
    return Facts(place, mode=mode, misnamed=misnamed, digest=digest(data))


def header(data: bytes) -> tuple[str, str]:
    """PIL's mode and format of an image; "unknown" where only torchvision can read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as image:
                # MPO is a JPEG with a second picture behind the first, as some cameras write.
                return image.mode, "JPEG" if image.format == "MPO" else str(image.format)
        # PIL's readers raise almost anything.
        except Exception:
            return "unknown", "unknown"


def digest(data: bytes) -> bytes:
    """16 bytes that are the same for the same content only."""
    return hashlib.blake2b(data, digest_size=16).digest()


def print_counts(found: Found, published: tuple[int, int, int] | None) -> None:
    """Print the numbers of classes and images beside the published ones."""
    print_row("", "found", "published")
    names = ("classes", "training images", "validation images")
    counts = (len(found.classes), len(found.train.labels), len(found.val.labels))
    for name, count, expected in zip(names, counts, published or ("-",) * 3, strict=True):
        print_row(name, count, expected, "" if expected in ("-", count) else "differs")


def print_splits(train: Split, val: Split, twins: dict[int, list[int]], classes: list[str]) -> None:
    """Print what is counted in each split."""
    splits = (train, val)
    print_row("", "training", "validation")
    sizes = [np.bincount(np.asarray(s.labels, dtype=int), minlength=len(classes)) for s in splits]
    for word, find_place in (("smallest", np.argmin), ("largest", np.argmax)):
        places = [int(find_place(counts)) for counts in sizes]
        values = [int(counts[place]) for counts, place in zip(sizes, places, strict=True)]
        chosen = dict.fromkeys(classes[place] for place in places)
        print_row(f"{word} class", *values, " / ".join(chosen))
    print_row("unreadable", *(len(split.unreadable) for split in splits))
    for mode in sorted({"L", *train.modes, *val.modes} - {"RGB"}):
        name = "greyscale (L)" if mode == "L" else f"mode {mode}"
        print_row(name, *(split.modes[mode] for split in splits))
    print_row("other format than name", *(len(split.misnamed) for split in splits))
    names = [split.names() for split in splits]
    both = set(names[0]) & set(names[1])
    counts = [sum(name in both for name in part) for part in names]
    note = "of different images" if both and not twins else ""
    print_row("name in both splits", *counts, note)
    in_val = {place for places in twins.values() for place in places}
    print_row("content in both splits", len(twins), len(in_val))


def print_row(name: str, first: object, second: object, note: str = "") -> None:
    """Print a line of a table."""
    say(f"{name:24}{first:>12}{second:>12}  {note}".rstrip())


def print_examples(train: Split, val: Split, twins: dict[int, list[int]], data_dir: Path) -> None:
    """Print the first few of everything odd that is counted, with paths below `data_dir`."""

    def short(path: str) -> str:
        return path if train.in_memory() else os.path.relpath(path, data_dir)

    def print_first(word: str, lines: Iterable[str]) -> None:
        for line in islice(lines, MAX_LISTED):
            say(f"{word}: {line}")

    for split in (train, val):
        pairs = sorted(split.unreadable.items())
        print_first("unreadable", (f"{short(path)}: {why}" for path, why in pairs))
    for split in (train, val):
        pairs = sorted(split.misnamed.items())
        print_first("other format than name", (f"{short(path)} is {kind}" for path, kind in pairs))
    places = {name: place for place, name in reversed(list(enumerate(val.names())))}
    print_first(
        "name in both splits",
        (
            f"{short(train.where(place))}, {short(val.where(places[name]))}"
            for place, name in enumerate(train.names())
            if name in places and twins  # of different images it is no fault
        ),
    )
    print_first(
        "content in both splits",
        (
            f"{short(train.where(place))}, {short(val.where(min(twins[place])))}"
            for place in sorted(twins)
        ),
    )


def refuse_unreadable(split: Split, classes: list[str]) -> None:
    """Raise InputError where training would: too many unreadable images, or all of a class."""
    if len(split.unreadable) > MAX_UNREADABLE * len(split):
        first = min(split.unreadable)
        raise InputError(
            f"{len(split.unreadable)} of {len(split)} {split.name} images cannot be read, more "
            f"than 1 %; training would refuse them; the first is {first}: {split.unreadable[first]}"
        )
    if split.name == "training":
        sizes = Counter(int(label) for label in split.labels)
        for label, number in split.unreadable_of_class.items():
            if number == sizes[label]:
                raise InputError(
                    f"none of the {number} training images of class {classes[label]} can be read; "
                    "training would refuse them"
                )
