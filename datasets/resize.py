"""Scale a data set once, so that training need not decode large images in every epoch.

Every image below one folder is decoded and scaled as training does it first (decode, then resize to
a square) and written below another folder under the same name, as a JPEG. The name stays even where
it ends in .png or .tif: lists and labels refer to names, and `decode` goes by the first bytes of a
file and not by its name. Other visible files (lists, labels) are copied; archives and hidden files
are left out.

JPEG of quality 95 with chroma at half the resolution (4:2:0), PIL's default and that of most
photographs; a pixel then differs from the scaled image by 2 levels on average, with full chroma by
1.5 in files a quarter larger (100 images of ImageNet).
"""

import contextlib
import filecmp
import io
import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from console import InputError, say, warn
from safe_io import atomic_path, is_running

from .decode import JPEG_START, jpeg_size
from .folder import EXTENSIONS, ancestors, cannot_list, is_image
from .images import ImageFiles, Unreadable
from .progress import Progress
from .workers import in_chunks, in_processes

QUALITY = 95
SUBSAMPLING = "4:2:0"
JPEG_END = b"\xff\xd9"
JPEG_SCAN = 0xFFDA  # starts the segment before the pixels
MAX_SIZE = 65500  # of libjpeg
# Images that a process takes at a time: a fraction of a second's work.
CHUNK = 16
# What is left behind, here and by atomic_path, when a process is killed; others' files look alike.
TEMPORARY = re.compile(r"\.(?P<of>.+)\.(?P<pid>[0-9]+)\.tmp", re.DOTALL)
MAX_LISTED = 20
# Not copied: as large as the data set itself, whose images they hold unscaled.
ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zip", ".7z", ".rar")


class Folder(NamedTuple):
    """A visible folder at or below a root.

    name: relative to the root, "" for the root. images, others: names of its visible files, sorted.
    same_as: name of an earlier folder that this one is a link to; its files are then not repeated.
    """

    name: str
    images: list[str]
    others: list[str]
    same_as: str | None = None


def resize_folder(src: Path, dst: Path, *, size: int, workers: int) -> int:
    """Write every image below `src` to `dst`, size x size; returns 1 if some are unreadable or 0.

    What is there already is not done again, so the same command goes on after an interruption.
    workers: processes; 0: this one does it. Raises InputError for folders that cannot be used so,
    for a file that cannot be written or that something else is in the way of, and when `dst` ends
    up with other images than `src`.
    """
    total = check_folders(src, dst, size)
    say(f"{src}: {total} images, to {size} x {size} pixels in {dst}")
    written, unreadable = 0, {}
    work = partial(resize_images, src=src, dst=dst, size=size)
    remove_leftovers(src, dst)
    chunks = in_chunks(prepare(src, dst), CHUNK)
    with (
        Progress(total, "resize", lines=True) as progress,
        contextlib.closing(in_processes(work, chunks, workers=workers)) as results,
    ):
        for images, new, failed in results:
            progress.add(images)
            written += new
            unreadable.update(failed)
    os.sync()
    compare(src, dst, unreadable)
    for name in sorted(unreadable)[:MAX_LISTED]:
        warn(f"cannot read {src / name}: {unreadable[name]}")
    if len(unreadable) > MAX_LISTED:
        warn(f"cannot read {len(unreadable) - MAX_LISTED} more")
    already = progress.done - written - len(unreadable)
    say(f"{dst}: {written} images written, {already} already there, {len(unreadable)} unreadable")
    return 1 if unreadable else 0


def check_folders(src: Path, dst: Path, size: int) -> int:
    """The number of images below `src`; InputError where it cannot be scaled into `dst`."""
    if size > MAX_SIZE:
        raise InputError(f"--size {size} is more than a JPEG can hold, {MAX_SIZE} pixels a side")
    if not os.path.isdir(src):
        state = "is not a folder" if os.path.exists(src) else "does not exist"
        raise InputError(f"{src} {state}; give the folder of the images")
    if os.path.lexists(dst) and not os.path.isdir(dst):
        raise InputError(f"{dst} is not a folder; give one for the scaled images")
    total = 0
    real_dst, above_dst = os.path.realpath(dst), ancestors(dst)
    for folder in walk(src):
        path = src / folder.name
        # Links included: what is written would be read again, without end.
        if os.path.realpath(path) in above_dst or real_dst in ancestors(path):
            raise InputError(
                f"{path} and {dst} are the same or one is in the other; write to a folder elsewhere"
            )
        total += len(folder.images)
    if not total:
        raise InputError(f"no images in {src}: no file below it ends in {' '.join(EXTENSIONS)}")
    return total


def walk(root: Path) -> Iterator[Folder]:
    """The visible folders at and below `root`, sorted, each before its sub-folders.

    Links are followed, but not to a folder above. Raises InputError for one that cannot be listed.
    """
    above = ancestors(Path(os.path.realpath(root)).parent)
    names: dict[str, str] = {}
    for parent, folders, files in os.walk(root, followlinks=True, onerror=cannot_list):
        name = "" if parent == str(root) else os.path.relpath(parent, root)
        real = os.path.realpath(parent)
        first = names.setdefault(real, name)
        if real in above or first != name:
            folders.clear()
            if real not in above and not Path(name).is_relative_to(first):
                yield Folder(name, [], [], same_as=first)
            continue
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        visible = sorted(file for file in files if not file.startswith("."))
        images = [file for file in visible if is_image(file)]
        others = [file for file in visible if not file.lower().endswith(EXTENSIONS + ARCHIVES)]
        yield Folder(name, images, others)


def prepare(src: Path, dst: Path) -> Iterator[str]:
    """Make the folders and copy the files that are no images; yields the names of the images."""
    for folder in walk(src):
        target = dst / folder.name
        try:
            if folder.same_as is None:
                target.mkdir(parents=True, exist_ok=True)
            elif not os.path.lexists(target):
                # A link again: the readers would count the copies as images of their own.
                target.symlink_to(os.path.relpath(dst / folder.same_as, target.parent))
        except OSError as error:
            raise InputError(f"cannot create the folder {target}: {error.strerror}") from error
        for name in folder.others:
            if os.path.isfile(src / folder.name / name):
                copy(src / folder.name / name, target / name)
        for name in folder.images:
            yield os.path.join(folder.name, name)


def copy(source: Path, target: Path) -> None:
    """Copy a file, unless it is there; InputError, and all as it was, if anything else is there.

    Since copies are made whole or not at all, no other content is what a run has left half done.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY)
    except OSError as error:
        raise InputError(
            f"cannot read {source}: {error.strerror}; make it readable, or remove it"
        ) from error
    with open(descriptor, "rb") as file:
        if os.path.lexists(target):
            # Of a link to nowhere there is nothing to compare.
            with contextlib.suppress(OSError):
                if filecmp.cmp(source, target, shallow=False):
                    return
            raise InputError(
                f"{target} is there already with other content than {source} (your own file, or a "
                "copy of an older version); remove it or give another folder"
            )
        with atomic_path(target) as temporary, open(temporary, "wb") as out:
            shutil.copyfileobj(file, out)


def resize_images(
    names: list[str], *, src: Path, dst: Path, size: int
) -> tuple[int, int, dict[str, str]]:
    """Scale the images of these names; returns how many they are, how many were written, and name
    -> reason of those that cannot be read.
    """
    missing = [name for name in names if not is_done(dst / name, size)]
    files = ImageFiles([str(src / name) for name in missing], [0] * len(missing), image_size=size)
    unreadable = {}
    for name, image in zip(missing, files.images(range(len(missing))), strict=True):
        if isinstance(image, Unreadable):
            unreadable[name] = image.reason
        else:
            write_jpeg(dst / name, image)
    return len(names), len(missing) - len(unreadable), unreadable


def is_done(target: Path, size: int) -> bool:
    """Whether the scaled image is there, whole; InputError for a file that is anything else."""
    try:
        with open(target, "rb") as file:
            start = file.read(1024)
            file.seek(max(0, file.seek(0, os.SEEK_END) - len(JPEG_END)))
            end = file.read()
            file.seek(0)
            whole = end == JPEG_END or (start.startswith(JPEG_START) and has_end(file.read()))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InputError(f"cannot read {target}: {error.strerror}; remove it") from error
    # A power cut can leave a file empty, as zeros, or without its end: see write_jpeg.
    if not start.strip(b"\0"):
        return False
    if not start.startswith(JPEG_START) or jpeg_size(start) != (size, size):
        raise InputError(
            f"{target} is there already, but is no JPEG of {size} x {size} pixels; choose another "
            "folder, or remove it"
        )
    return whole


def has_end(data: bytes) -> bool:
    """Whether a JPEG has its end marker, behind which others than us may have put more."""
    # A thumbnail before the pixels has an end marker, too.
    position, marker = len(JPEG_START) - 1, None
    while position + 4 <= len(data) and marker != JPEG_SCAN:
        marker, length = struct.unpack_from(">HH", data, position)
        if marker < 0xFF00:
            return False
        position += 2 + length
    # Among the pixels 0xFF is followed by 0x00.
    return marker == JPEG_SCAN and data.find(JPEG_END, position) >= 0


def write_jpeg(path: Path, image: Tensor) -> None:
    """Write uint8 [3, H, W] (RGB) under a temporary name, then rename it.

    Unlike atomic_path without fsync, which would take longer than all the rest; `is_done` finds
    what a power cut has cut short, and the whole run ends with one sync.
    """
    buffer = io.BytesIO()
    pixels = image.permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING)
    temporary = path.with_name(f".{short_name(path.name)}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; what is done stays, and the same command goes "
            "on from there"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def short_name(name: str) -> str:
    """What a temporary name has of a name, which may be as long as a file system allows."""
    return f"{zlib.crc32(os.fsencode(name)):08x}"


def remove_leftovers(src: Path, dst: Path) -> None:
    """Delete the temporary files that killed processes have made for files of `src`."""
    for parent, _, files in os.walk(dst):
        found = [match for match in map(TEMPORARY.fullmatch, files) if match]
        left = [match for match in found if not is_running(int(match["pid"]))]
        if not left:
            continue
        try:
            names = os.listdir(src / os.path.relpath(parent, dst))
        except OSError:
            continue
        ours = {*names, *map(short_name, names)}
        for match in left:
            if match["of"] in ours:
                Path(parent, match[0]).unlink(missing_ok=True)


def compare(src: Path, dst: Path, unreadable: Iterable[str]) -> None:
    """Raise InputError unless `dst` has the images of `src`, but for the unreadable ones."""
    left_out = set(unreadable)
    missing = next((name for name in lacking(src, dst) if name not in left_out), None)
    if missing is not None:
        raise InputError(
            f"{dst} has no {missing} although it was written: removed meanwhile, or the disk takes "
            "upper and lower case for the same; give the same command again, or another folder"
        )
    extra = list(islice(lacking(dst, src), 2))
    if extra:
        raise InputError(
            f"{dst} has {extra[0]}{' and others' if len(extra) > 1 else ''}, which {src} lacks; "
            "remove what does not belong there"
        )


def lacking(these: Path, those: Path) -> Iterator[str]:
    """Names of the images below `these` that are not below `those`."""
    for folder in walk(these):
        try:
            present = set(os.listdir(those / folder.name))
        except (FileNotFoundError, NotADirectoryError):
            present = set()
        except OSError as error:
            cannot_list(error)
        for name in folder.images:
            if name not in present:
                yield os.path.join(folder.name, name)
