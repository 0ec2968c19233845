"""Look at a whole data set before a long run: counts, unreadable images, odd files, duplicates."""

import contextlib
import hashlib
import io
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from console import InputError, say

from . import DATASETS, find, full_name
from .decode import bits_of_16, decode, jpeg_end, stated_range, stderr_to
from .folder import Samples, Splits, video
from .images import ImageFiles, Unreadable, read_file
from .listing import NOWHERE, not_taken
from .loader import MAX_UNREADABLE
from .progress import Progress
from .workers import in_chunks, in_processes

# Images that a process takes at a time.
CHUNK = 16
MAX_LISTED = 3
# The name of the last chunk, which is empty, and its check sum.
PNG_END = b"IEND\xaeB`\x82"


class Facts(NamedTuple):
    """About one image, the one at `index` in its split.

    reason: why it cannot be read, None if it can. mode: PIL's. misnamed: the format of a file whose
    extension names another. bits: that the values of 16-bit greyscale are taken for. odd: what is
    in a file besides its image. digest: of the file, or of the pixels in memory.
    """

    index: int
    reason: str | None = None
    mode: str = "RGB"
    misnamed: str | None = None
    bits: int | None = None
    odd: str | None = None
    digest: bytes = b""


class Report:
    """About one split: its samples, and counts over its images."""

    def __init__(self, name: str, samples: Samples) -> None:
        self.name = name
        self.images = samples.images
        self.labels = samples.labels
        self.in_memory = isinstance(samples.images, np.ndarray)
        self.unreadable: dict[str, str] = {}
        self.unreadable_of_class: Counter[int] = Counter()
        self.misnamed: dict[str, str] = {}
        self.odd: dict[str, str] = {}
        self.modes: Counter[str] = Counter()
        self.bits: Counter[int] = Counter()
        # Half of each digest: enough for a million images, in a tenth of the memory.
        self.digests = np.zeros(len(samples.labels), dtype=np.uint64)

    def add(self, facts: Facts) -> None:
        """Count one image."""
        if facts.reason is not None:
            self.unreadable[self.path(facts.index)] = facts.reason
            self.unreadable_of_class[int(self.labels[facts.index])] += 1
            return
        self.modes[facts.mode] += 1
        self.digests[facts.index] = int.from_bytes(facts.digest[:8], "little")
        if facts.bits:
            self.bits[facts.bits] += 1
        if facts.odd:
            self.odd[self.path(facts.index)] = facts.odd
        if facts.misnamed:
            self.misnamed[self.path(facts.index)] = facts.misnamed

    def path(self, index: int) -> str:
        """The path of an image; its number where it has none."""
        return f"{self.name} image {index}" if self.in_memory else self.images[index]

    def file_names(self) -> list[str]:
        """The names of the files, without folders."""
        return [] if self.in_memory else [os.path.basename(path) for path in self.images]

    def frames(self, classes: list[str]) -> Counter[str]:
        """CLASS/VIDEO -> number of its frames, by the names of the files."""
        counts: Counter[str] = Counter()
        for path, label in zip(() if self.in_memory else self.images, self.labels, strict=False):
            name = video(path)
            if name != path:
                folder = classes[int(label)]
                counts[f"{folder}/{name.rpartition(f'/{folder}/')[2]}"] += 1
        return counts


def check(name: str, data_dir: Path, *, workers: int) -> None:
    """Print what the data set holds.

    workers: processes; 0: the calling one does the work. Raises InputError for data that training
    would refuse: at once for what `find` refuses, after the table for unreadable images.
    """
    name = full_name(name)
    splits = find(name, data_dir)
    train, val = Report("training", splits.train), Report("validation", splits.val)
    size = DATASETS[name].image_size
    # Digests are kept of the smaller split only: digest -> indices.
    contents: dict[bytes, list[int]] = {}
    duplicates: dict[int, list[int]] = {}
    for facts in inspect(val, size, workers):
        val.add(facts)
        if facts.reason is None:
            contents.setdefault(facts.digest, []).append(facts.index)
    for facts in inspect(train, size, workers):
        train.add(facts)
        if facts.digest in contents:
            duplicates[facts.index] = contents[facts.digest]

    say(f"{name} in {data_dir}")
    if splits.note:
        say(splits.note)
    print_counts(splits, DATASETS[name].published)
    print_splits(train, val, duplicates, splits.classes)
    is_odd = print_oddities(train, val, splits.classes, data_dir) or bool(duplicates)
    print_examples(train, val, duplicates, data_dir)
    if not train.in_memory:
        for line in not_taken([*train.images, *val.images]):
            say(f"not taken: {line}")
            is_odd = is_odd or NOWHERE in line
    for report in (train, val):
        refuse_unreadable(report, splits.classes)
    ending = ", but see what is odd above" if is_odd else ""
    say(f"nothing here that training would refuse{ending}")


# The images


def inspect(report: Report, image_size: int, workers: int) -> Iterator[Facts]:
    """Facts about every image of a split, in any order."""
    with Progress(len(report.labels), f"check, {report.name}", lines=False) as progress:
        if report.in_memory:
            for index, pixels in enumerate(report.images):
                yield Facts(index, digest=digest(pixels.tobytes()))
                progress.add(1)
            return
        work = partial(inspect_files, image_size=image_size)
        chunks = in_chunks(enumerate(report.images), CHUNK)
        with contextlib.closing(in_processes(work, chunks, workers=workers)) as results:
            for chunk in results:
                yield from chunk
                progress.add(len(chunk))


def inspect_files(files: list[tuple[int, str]], *, image_size: int) -> list[Facts]:
    """Facts about files, each given by its index and path."""
    paths = [path for _, path in files]
    with tempfile.TemporaryFile() as messages:
        dataset = Listening(paths, messages, image_size=image_size)
        images = dataset.images(range(len(files)))
    return [
        Facts(index, image.reason)
        if isinstance(image, Unreadable)
        else inspect_file(index, path, dataset.heard)
        for (index, path), image in zip(files, images, strict=True)
    ]


class Listening(ImageFiles):
    """The loader's own way to read, so that files it cannot read are unreadable here.

    messages: an empty file. heard: digest of an image file -> what libjpeg said about it.
    """

    def __init__(self, paths: list[str], messages: BinaryIO, *, image_size: int) -> None:
        super().__init__(paths, [0] * len(paths), image_size=image_size)
        self.messages = messages
        self.heard: dict[bytes, str] = {}

    def decode(self, data: bytes) -> Tensor:
        start = self.messages.seek(0, os.SEEK_END)
        with stderr_to(self.messages):
            image = decode(data)
        if self.messages.seek(0, os.SEEK_END) > start:
            self.messages.seek(start)
            self.heard[digest(data)] = self.messages.readline().decode("ascii", "replace").strip()
        return image


def inspect_file(index: int, path: str, heard: dict[bytes, str]) -> Facts:
    """Facts about a file that can be decoded."""
    # A second reading, now from the system's cache.
    data = read_file(os.fsencode(path))
    if isinstance(data, OSError):
        return Facts(index, data.strerror or "cannot be read")
    mode, kind, bits = header(data)
    expected = Image.registered_extensions().get(os.path.splitext(path)[1].lower())
    odd = heard.get(digest(data)) or behind_the_end(data, kind)
    return Facts(
        index,
        mode=mode,
        misnamed=None if expected in (None, kind) else kind,
        bits=bits,
        odd=odd,
        digest=digest(data),
    )


def header(data: bytes) -> tuple[str, str, int | None]:
    """PIL's mode and format of an image; "unknown" where only torchvision can read it.

    And the bits that the values of 16-bit greyscale are taken for, unless the file states a range.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data)) as image:
                grey = image.mode.startswith("I") and not stated_range(image)
                bits = bits_of_16(image) if grey else None
                # MPO is a JPEG with a second picture behind the first, as some cameras write.
                return image.mode, "JPEG" if image.format == "MPO" else str(image.format), bits
        # PIL's readers raise almost anything.
        except Exception:
            return "unknown", "unknown", None


def behind_the_end(data: bytes, kind: str) -> str | None:
    """How many bytes follow a JPEG or PNG, in words; None for other formats and for none."""
    end = None
    if kind == "JPEG" and b"MPF\0" not in data[:65536]:
        end = jpeg_end(data)
    elif kind == "PNG":
        end = data.find(PNG_END) + len(PNG_END)
    more = len(data) - end if end else 0
    return f"{more} bytes behind its end" if more > 0 else None


def digest(data: bytes) -> bytes:
    """16 bytes that tell contents apart."""
    return hashlib.blake2b(data, digest_size=16).digest()


# The printed page


def print_counts(splits: Splits, published: tuple[int, int, int] | None) -> None:
    """Print the numbers of classes and images beside the published ones."""
    print_row("", "found", "published")
    names = ("classes", "training images", "validation images")
    counts = (len(splits.classes), len(splits.train.labels), len(splits.val.labels))
    for name, count, expected in zip(names, counts, published or ("-",) * 3, strict=True):
        print_row(name, count, expected, "" if expected in ("-", count) else "differs")


def print_splits(
    train: Report, val: Report, duplicates: dict[int, list[int]], classes: list[str]
) -> None:
    """Print the counts of each split."""
    reports = (train, val)
    print_row("", "training", "validation")
    sizes = [np.bincount(np.asarray(r.labels, dtype=int), minlength=len(classes)) for r in reports]
    for word, extreme in (("smallest", np.argmin), ("largest", np.argmax)):
        labels = [int(extreme(counts)) for counts in sizes]
        values = [int(counts[label]) for counts, label in zip(sizes, labels, strict=True)]
        names = dict.fromkeys(classes[label] for label in labels)
        print_row(f"{word} class", *values, " / ".join(names))
    print_row("unreadable", *(len(report.unreadable) for report in reports))
    for mode in sorted({"L", *train.modes, *val.modes} - {"RGB"}):
        name = "greyscale (L)" if mode == "L" else f"mode {mode}"
        print_row(name, *(report.modes[mode] for report in reports))
    print_row("other format than name", *(len(report.misnamed) for report in reports))
    in_both = set(train.file_names()) & set(val.file_names())
    counts = [sum(name in in_both for name in report.file_names()) for report in reports]
    note = "of different images" if in_both and not duplicates else ""
    print_row("name in both splits", *counts, note)
    in_val = {index for indices in duplicates.values() for index in indices}
    print_row("content in both splits", len(duplicates), len(in_val))


def print_oddities(train: Report, val: Report, classes: list[str], data_dir: Path) -> bool:
    """Print the rows of what is rarely in a data set, where it is; whether anything is."""
    rows: list[tuple[str, int, int, str]] = []
    examples: list[str] = []
    rows.append(("junk or damage in file", len(train.odd), len(val.odd), ""))
    for path, why in sorted({**train.odd, **val.odd}.items())[:MAX_LISTED]:
        examples.append(f"junk or damage in file: {os.path.relpath(path, data_dir)}: {why}")
    bits = train.bits + val.bits
    for number in (8, 12):
        name, note = f"{number} bits in a 16-bit file", f"scaled by {2**number - 1}"
        if len(bits) > 1:
            note += ", others not: give all images one range"
        rows.append((name, train.bits[number], val.bits[number], note))
    frames = train.frames(classes), val.frames(classes)
    both = sorted(frames[0].keys() & frames[1].keys())
    counts = [sum(part[name] for name in both) for part in frames]
    note = f"their frames: {counts[0]} + {counts[1]}"
    rows.append(("videos in both splits", len(both), len(both), note))
    examples += [f"videos in both splits: {name}" for name in both[:MAX_LISTED]]
    twice, pairs = in_two_classes(train, val)
    rows.append(("content in two classes", *twice, ""))
    for pair in pairs[:MAX_LISTED]:
        first, second = (
            path if train.in_memory else os.path.relpath(path, data_dir) for path in pair
        )
        examples.append(f"content in two classes: {first}, {second}")
    rows = [row for row in rows if row[1] or row[2]]
    for row in rows:
        print_row(*row)
    for line in examples:
        say(line)
    return bool(rows)


def in_two_classes(train: Report, val: Report) -> tuple[list[int], list[tuple[str, str]]]:
    """Images of each split whose content is in another class, too: numbers, and pairs of paths."""
    digests = np.concatenate([train.digests, val.digests])
    labels = np.concatenate([np.asarray(part.labels, dtype=int) for part in (train, val)])
    order = np.lexsort((labels, digests))
    digests, labels = digests[order], labels[order]
    # Where one content goes over to another class: neighbours in this order.
    borders = np.flatnonzero((digests[1:] == digests[:-1]) & (labels[1:] != labels[:-1]))
    found = np.isin(digests, digests[borders]) & (digests != 0)
    size = len(train.labels)
    counts = [int((order[found] < size).sum()), int((order[found] >= size).sum())]

    def path(index: int) -> str:
        return train.path(index) if index < size else val.path(index - size)

    borders = [i for i in borders if digests[i]]
    return counts, sorted((path(order[i]), path(order[i + 1])) for i in borders)


def print_row(name: str, first: object, second: object, note: str = "") -> None:
    """Print a line of a table."""
    say(f"{name:24}{first:>12}{second:>12}  {note}".rstrip())


def print_examples(
    train: Report, val: Report, duplicates: dict[int, list[int]], data_dir: Path
) -> None:
    """Print the first few examples of everything odd, with paths below `data_dir`."""

    def short(path: str) -> str:
        return path if train.in_memory else os.path.relpath(path, data_dir)

    def print_first(word: str, lines: Iterable[str]) -> None:
        for line in islice(lines, MAX_LISTED):
            say(f"{word}: {line}")

    def pairs(indices: dict[int, int]) -> Iterator[str]:
        for index in sorted(indices):
            yield f"{short(train.path(index))}, {short(val.path(indices[index]))}"

    for report in (train, val):
        unreadable = sorted(report.unreadable.items())
        print_first("unreadable", (f"{short(path)}: {why}" for path, why in unreadable))
    for report in (train, val):
        misnamed = sorted(report.misnamed.items())
        print_first(
            "other format than name", (f"{short(path)} is {kind}" for path, kind in misnamed)
        )
    if duplicates:  # different images may have one name
        first = {name: index for index, name in reversed(list(enumerate(val.file_names())))}
        same_name = {i: first[name] for i, name in enumerate(train.file_names()) if name in first}
        print_first("name in both splits", pairs(same_name))
    print_first("content in both splits", pairs({i: min(js) for i, js in duplicates.items()}))


def refuse_unreadable(report: Report, classes: list[str]) -> None:
    """Raise InputError where training would: too many unreadable images, or all of a class."""
    if len(report.unreadable) > MAX_UNREADABLE * len(report.labels):
        first = min(report.unreadable)
        raise InputError(
            f"{len(report.unreadable)} of {len(report.labels)} {report.name} images cannot be "
            f"read, more than 1 %; training would refuse them; the first is {first}: "
            f"{report.unreadable[first]}"
        )
    if report.name == "training":
        sizes = Counter(int(label) for label in report.labels)
        for label, number in report.unreadable_of_class.items():
            if number == sizes[label]:
                raise InputError(
                    f"none of the {number} training images of class {classes[label]} can be read; "
                    "training would refuse them"
                )
