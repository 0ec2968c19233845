"""What to say when a data set is not where it was looked for: packed still, or a folder away."""

import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from console import InputError

from . import folder, unsplit

# Folders that are looked into for the one that may be meant.
MOST = 200
# They take any image in a sub-folder for the data, and such a folder above is met by chance.
BY_ANY_IMAGE = (
    folder.locate,
    unsplit.locate_flowers,
    unsplit.locate_land_use,
    unsplit.locate_pocus,
)


def elsewhere(root: Path, locate: Callable[[Path], Path | None], *, like: str) -> str:
    """`; did you mean FOLDER?` if `locate` finds the data one folder further down or up, else "".

    Among several, one is taken in whose name `like` occurs. The folder above is not meant by data
    sets that any image in a sub-folder would do for, and the root of the file system by none.
    """
    with suppress(OSError, InputError):
        if locate(root) is not None:
            return ""
        for path in neighbours(root, like=like, above=locate not in BY_ANY_IMAGE):
            with suppress(OSError, InputError):
                if locate(Path(path)) is not None:
                    return f"; did you mean {path}?"
    return ""


def neighbours(root: Path, *, like: str, above: bool) -> list[str]:
    """The folders in `root`, those first in whose name `like` occurs, and if wanted the one above.

    The root of the file system is never among them.
    """
    inside = visible_folders(root)
    inside.sort(key=lambda name: like not in name.casefold().replace("-", ""))
    folders = [os.path.join(root, name) for name in inside[:MOST]]
    parent = os.path.dirname(os.path.abspath(root))
    # An empty folder beside images is where something was to be put.
    if (
        above
        and parent != os.path.dirname(parent)
        and (not os.path.isdir(root) or os.listdir(root))
    ):
        folders.append(parent)
    return folders


def visible_folders(folder: Path) -> list[str]:
    """Sorted names of the folders in a folder; none where it cannot be listed."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    return []


def unpacking(root: Path, archives: Sequence[str]) -> str | None:
    """The command that unpacks the first of `archives` that is in `root` (or is `root` itself)."""
    if os.path.isfile(root):
        names = {Path(archive).name for archive in archives}
        return command(root, root.parent) if root.name in names else None
    for archive in archives:
        if os.path.isfile(root / archive):
            return command(root / archive, root)
    return None


def command(archive: Path, folder: Path) -> str:
    """The shell command that unpacks the archive into the folder."""
    file, into = shlex.quote(str(archive)), shlex.quote(str(folder))
    return f"unzip {file} -d {into}" if archive.suffix == ".zip" else f"tar -xf {file} -C {into}"
