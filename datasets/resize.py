"""Scale a data set once, so that training need not decode large images in every epoch.

Every image below one folder is decoded and scaled as in training (decode, then resize to a square)
and written below another folder under the same name, as a JPEG. The name stays even where it ends
in .png or .tif: lists and labels refer to names, and `decode` goes by the first bytes of a file and
not by its name. Other visible files (lists, labels) are copied; archives and hidden files are left
out.

JPEG of quality 95 with chroma at half the resolution (4:2:0), PIL's default and that of most
photographs; a pixel then differs from the scaled image by 2 levels on average, with full chroma by
1.5 in files a quarter larger (100 images of ImageNet).
"""

import contextlib
import filecmp
import io
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image
from torch import Tensor

from console import InputError, say, warn
from safe_io import atomic_path

from .decode import JPEG_START, jpeg_size
from .images import ImageFiles, Unreadable
from .listing import EXTENSIONS, ancestors, cannot_list, is_hidden, is_image
from .progress import Progress
from .workers import in_chunks, in_processes

QUALITY = 95
SUBSAMPLING = "4:2:0"
JPEG_END = b"\xff\xd9"
MAX_SIZE = 65500  # of libjpeg
# Images that a process takes at a time: a fraction of a second's work.
CHUNK = 16
MAX_LISTED = 20
# Not copied: as large as the data set itself, whose images they hold unscaled.
ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".zip", ".7z", ".rar")


def resize_folder(src: Path, dst: Path, *, size: int, workers: int) -> int:
    """Write every image below `src` to `dst`, size x size. Returns 1 if any is unreadable.

    Images that are there already are not done again, so the same command goes on after an
    interruption. workers: processes; 0: the calling one does the work. Raises InputError for
    folders that cannot be used, for files that cannot be written, and for other files in their way.
    """
    total = check_folders(src, dst, size)
    say(f"{src}: {total} images, to {size} x {size} pixels in {dst}")
    written, unreadable = 0, {}
    work = partial(resize_images, src=src, dst=dst, size=size)
    chunks = in_chunks(prepare(src, dst), CHUNK)
    with (
        Progress(total, "resize", lines=True) as progress,
        contextlib.closing(in_processes(work, chunks, workers=workers)) as results,
    ):
        for images, new, failed in results:
            progress.add(images)
            written += new
            unreadable.update(failed)
    os.sync()  # once, as write_jpeg does not
    for name in sorted(unreadable)[:MAX_LISTED]:
        warn(f"cannot read {src / name}: {unreadable[name]}")
    if len(unreadable) > MAX_LISTED:
        warn(f"cannot read {len(unreadable) - MAX_LISTED} more")
    already = progress.done - written - len(unreadable)
    say(f"{dst}: {written} images written, {already} already there, {len(unreadable)} unreadable")
    return 1 if unreadable else 0


# Folders


def check_folders(src: Path, dst: Path, size: int) -> int:
    """The number of images below `src`; InputError where they cannot be scaled into `dst`."""
    if size > MAX_SIZE:
        raise InputError(f"--size {size} is more than a JPEG can hold, {MAX_SIZE} pixels a side")
    if not os.path.isdir(src):
        state = "is not a folder" if os.path.exists(src) else "does not exist"
        raise InputError(f"{src} {state}; give the folder of the images")
    if os.path.lexists(dst) and not os.path.isdir(dst):
        raise InputError(f"{dst} is not a folder; give one for the scaled images")
    total = 0
    real_dst, above_dst = os.path.realpath(dst), ancestors(dst)
    for name, files, _ in walk(src):
        path = src / name
        # Behind links, too: images written there would be read again, without end.
        if os.path.realpath(path) in above_dst or real_dst in ancestors(path):
            raise InputError(
                f"{path} and {dst} are the same or one is in the other; write to a folder elsewhere"
            )
        total += sum(map(is_image, files))
    if not total:
        raise InputError(f"no images in {src}: no file below it ends in {' '.join(EXTENSIONS)}")
    return total


def walk(root: Path) -> Iterator[tuple[str, list[str], str | None]]:
    """The visible folders at and below `root`, each before its sub-folders.

    Yields their names relative to `root`, the sorted names of their visible files, and None; for a
    link to a folder that came under another name, no files and that name. Links to a folder above
    are left out. Raises InputError for a folder that cannot be listed.
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
                yield name, [], first
            continue
        folders[:] = sorted(folder for folder in folders if not is_hidden(folder))
        yield name, sorted(file for file in files if not is_hidden(file)), None


def prepare(src: Path, dst: Path) -> Iterator[str]:
    """Make the folders and copy the files that are no images; yields the names of the images."""
    for name, files, same_as in walk(src):
        target = dst / name
        try:
            if same_as is None:
                target.mkdir(parents=True, exist_ok=True)
            elif not os.path.lexists(target):
                # A link again: the readers would count copies as images of their own.
                target.symlink_to(os.path.relpath(dst / same_as, target.parent))
        except OSError as error:
            raise InputError(f"cannot create the folder {target}: {error.strerror}") from error
        for file in files:
            if is_image(file):
                yield os.path.join(name, file)
            elif os.path.isfile(src / name / file) and not file.lower().endswith(ARCHIVES):
                copy(src / name / file, target / file)


def copy(source: Path, target: Path) -> None:
    """Copy a file, unless it is there; InputError where another file is in the way."""
    try:
        if not os.path.lexists(target):
            with (
                open(source, "rb") as file,
                atomic_path(target) as temporary,
                open(temporary, "wb") as out,
            ):
                shutil.copyfileobj(file, out)
        elif not filecmp.cmp(source, target):
            raise InputError(
                f"{target} is there already with other content than {source} (your own file, or a "
                "copy of an older version); remove it or give another folder"
            )
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error


# Images


def resize_images(
    names: list[str], *, src: Path, dst: Path, size: int
) -> tuple[int, int, dict[str, str]]:
    """Scale the images `names`.

    Returns their number, the number of those written, and name -> reason of the unreadable ones.
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
    """Whether the scaled image is there; InputError for a file that is anything else."""
    try:
        with open(target, "rb") as file:
            start = file.read(1024)
            file.seek(max(0, file.seek(0, os.SEEK_END) - len(JPEG_END)))
            end = file.read()
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
    return end == JPEG_END


def write_jpeg(path: Path, image: Tensor) -> None:
    """Write uint8 [3, H, W] (RGB) under a temporary name, then rename it.

    Unlike atomic_path without fsync, which would take longer than all the rest; `is_done` finds
    files that a power cut has cut short.
    """
    buffer = io.BytesIO()
    pixels = image.permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING)
    # Not from the name of the image, which may be as long as a file system allows.
    temporary = path.with_name(f".{os.getpid()}.tmp")
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
