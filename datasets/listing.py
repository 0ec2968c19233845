"""What lies in class folders: their images, and an account of everything else.

Hidden files and folders (`._x.jpg` of macOS, `.ipynb_checkpoints`) and those that systems make are
ignored, endings count in upper and lower case, symbolic links are followed.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from console import InputError, warn

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".gif", ".avif", ".jp2"),
)
# Network disks (@eaDir and #recycle of Synology, @Recycle of QNAP), Windows, archives of macOS, and
# repaired file systems make them; in small letters.
SYSTEM = {
    *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "~snapshot", "@tmp"),
    *("lost+found", "found.000"),
    *("$recycle.bin", "recycler", "system volume information", "__macosx"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini"),
}
NOWHERE = "leading nowhere"  # of a link
# Numbers that stand for an unknown inode, such as those of FUSE.
NO_INODE = (0, 2**32 - 1, 2**64 - 1)


class ClassFiles(NamedTuple):
    """The images of one class folder, in any order, with the inode of each (uint64)."""

    root: str
    name: str
    paths: list[str]
    inodes: np.ndarray


class Walk:
    """Lists class folders and keeps account of what is left out; `report` warns of it.

    known: ending of other files that the archive of the data set holds, of which nothing is said.
    """

    def __init__(self, known: str | None = None) -> None:
        self.known = known
        self.others: list[str] = []
        self.links: dict[str, str] = {}
        self.loose: dict[str, int] = {}
        self.files: list[ClassFiles] = []

    def class_folders(self, root: Path) -> list[str]:
        """Sorted names of the folders in `root` as `sub_folders` gives them; counts all else."""
        folders = sub_folders(root)
        known, links = set(folders), []
        for entry in entries_of(root):
            if is_hidden(entry.name):
                continue
            if entry.name in known:
                links += [entry.name] * entry.is_symlink()
            elif entry.is_symlink() and not os.path.isfile(entry.path):
                self.links[entry.path] = why_not_followed(entry.path)
            elif is_image(entry.name):
                self.loose[str(root)] = self.loose.get(str(root), 0) + 1
            else:
                self.others.append(entry.path)
        if links:
            self.find_twins(root, folders, sorted(links))
        return folders

    def find_twins(self, root: Path, folders: list[str], links: list[str]) -> None:
        """Note the class folders that are links to another one."""
        first = {os.path.realpath(root / name): name for name in folders if name not in links}
        for name in links:
            other = first.setdefault(os.path.realpath(root / name), name)
            if other != name:
                self.links[str(root / name)] = f"leads to the same folder as class {other}"

    def images_below(self, folder: Path) -> list[str]:
        """Sorted paths of all visible images in `folder` and below; every folder is read once."""
        paths: list[str] = []
        inodes: list[int] = []
        # A link to a folder above would bring in the images of other classes.
        above = ancestors(folder.parent)
        seen: set[str] = set()
        waiting = [str(folder)]
        while waiting:
            parent = waiting.pop()
            real = os.path.realpath(parent)
            if real in above:
                self.links[parent] = why_not_followed(parent)
            if real in above or real in seen:
                continue
            seen.add(real)
            inside = []
            for entry in entries_of(parent):
                name = entry.name
                if is_folder(entry):
                    if not is_hidden(name):
                        inside.append(entry.path)
                # `is_image` written out, here and only here: a call for each of a million files.
                elif name.lower().endswith(EXTENSIONS) and name[0] != ".":
                    paths.append(entry.path)
                    inodes.append(inode_of(entry) if entry.is_symlink() else entry.inode())
                elif not is_hidden(name):
                    self.leave_out(entry)
            waiting += sorted(inside, reverse=True)
        numbers = np.array(inodes, dtype=np.uint64)
        self.files.append(ClassFiles(str(folder.parent), folder.name, paths, numbers))
        return sorted(paths)

    def leave_out(self, entry: os.DirEntry) -> None:
        """Count a file that is no image by its name."""
        if entry.is_symlink() and not os.path.exists(entry.path):
            self.links[entry.path] = why_not_followed(entry.path)
        elif not (self.known and entry.name.endswith(self.known)):
            self.others.append(entry.path)

    def report(self) -> None:
        """Warn of everything that is left out, and of images that are there twice."""
        if self.others:
            warn(f"left out: {no_images(self.others)}")
        for root, number in self.loose.items():
            warn(f"left out: {number_of(number, 'image')} beside the class folders of {root}")
        for path, reason in sorted(self.links.items()):
            warn(f"{path} is a link that {reason}")
        for what, pairs in zip(("classes", "splits"), self.same_files(), strict=True):
            if pairs:
                example = ", ".join(pairs[0])
                warn(f"{number_of(len(pairs), 'image')} in two {what}, the same file: {example}")

    def same_files(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Pairs of paths of one file: in two classes, and in two splits of one class."""
        if not self.files:
            return [], []
        numbers = np.sort(np.concatenate([part.inodes for part in self.files]))
        twice = np.setdiff1d(numbers[1:][numbers[1:] == numbers[:-1]], NO_INODE)
        first: dict[tuple[int, int], tuple[str, ClassFiles]] = {}
        classes, splits = [], []
        for part in self.files if len(twice) else ():
            for index in np.flatnonzero(np.isin(part.inodes, twice)):
                path = part.paths[index]
                # The directory's numbers do not tell disks apart.
                status = os.stat(path)
                other, of = first.setdefault((status.st_dev, status.st_ino), (path, part))
                if of.name != part.name:
                    classes.append((other, path))
                elif of.root != part.root:
                    splits.append((other, path))
        return sorted(classes), sorted(splits)


def entries_of(folder: str | Path) -> list[os.DirEntry]:
    """All that lies in a folder; InputError if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        cannot_list(error)


def sub_folders(root: Path) -> list[str]:
    """Sorted names of the visible folders in `root`, without links to `root` or above."""
    above = ancestors(root)
    return sorted(
        entry.name
        for entry in entries_of(root)
        if not is_hidden(entry.name)
        and is_folder(entry)
        and not (entry.is_symlink() and os.path.realpath(entry.path) in above)
    )


def is_folder(entry: os.DirEntry) -> bool:
    """Whether this is a folder, or a link to one; not so for links in a circle."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def inode_of(entry: os.DirEntry) -> int:
    """The inode of the file that a link leads to; 0 where there is none."""
    try:
        return entry.stat().st_ino
    except OSError:
        return 0


def why_not_followed(path: str) -> str:
    """What is wrong with a link, in words."""
    target = os.readlink(path)
    if not os.path.exists(path):
        return f"leads nowhere ({target}); it is left out"
    return f"leads to a folder above it ({target}); it is left out"


def no_images(paths: Iterable[str]) -> str:
    """`4 files that are no images by their names (.txt 3, .csv 1), such as PATH`."""
    paths = sorted(paths)
    endings = Counter(sorted(os.path.splitext(p)[1].lower() or "no ending" for p in paths))
    counts = ", ".join(f"{ending} {number}" for ending, number in endings.most_common(5))
    more = ", ..." if len(endings) > 5 else ""
    one = len(paths) == 1
    words = "that is no image by its name" if one else "that are no images by their names"
    return f"{number_of(len(paths), 'file')} {words} ({counts}{more}), such as {paths[0]}"


def number_of(number: int, word: str) -> str:
    """`1 image`, or `2 images`."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def not_taken(taken: Iterable[str]) -> list[str]:
    """What lies in the folder of a data set beside the images that are taken, in lines.

    Each has a number of files, why they are left out, and an example relative to that folder.
    """
    images = {os.path.normpath(path) for path in taken}
    top = os.path.commonpath({os.path.dirname(path) for path in images})
    parts = {os.path.relpath(path, top).partition("/")[0] for path in images}
    others, reasons = [], {}
    for path in everything_below(top or "."):
        if path in images:
            continue
        name = os.path.relpath(path, top)
        first, *inside = name.split("/")
        if any(map(is_hidden, (first, *inside))):
            reason = "hidden or made by the system", "file"
        elif os.path.islink(path) and not os.path.exists(path):
            reason = NOWHERE, "link"
        elif not is_image(name):
            others.append(name)
            continue
        elif inside and first not in parts:
            reason = f"in {first}, which is passed over", "image"
        else:
            reason = "in no class folder or list", "image"
        reasons.setdefault(reason, []).append(name)
    lines = [no_images(others)] if others else []
    for (reason, word), names in sorted(reasons.items()):
        lines.append(f"{number_of(len(names), word)} {reason}, such as {min(names)}")
    return lines


def everything_below(top: str) -> Iterator[str]:
    """Paths of all files below a folder, hidden ones among them; every folder is read once."""
    seen = ancestors(Path(os.path.realpath(top)).parent)
    for parent, folders, names in os.walk(top, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (os.path.normpath(os.path.join(parent, name)) for name in names)


def is_image(name: str) -> bool:
    """Whether the name is that of a visible image file."""
    return name[0] != "." and name.lower().endswith(EXTENSIONS)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or made by a system."""
    return name.startswith(".") or name.lower() in SYSTEM


def ancestors(folder: Path) -> set[str]:
    """Real paths of the folder and of all folders above it."""
    real = Path(os.path.realpath(folder))
    return {str(path) for path in (real, *real.parents)}


def cannot_list(error: OSError) -> NoReturn:
    """Raise InputError for a folder that cannot be listed; os.walk would skip it silently."""
    raise InputError(f"cannot read the folder {error.filename}: {error.strerror}") from error
