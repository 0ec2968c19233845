"""Hints for a data set that is not in the given folder: a neighbouring folder, a packed archive."""

import os
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from console import InputError

from .listing import is_hidden

# Sub-folders that are tried, at most.
MAX_FOLDERS = 200


def did_you_mean(
    root: Path, locate: Callable[[Path], Path | None], *, like: str, upwards: bool
) -> str:
    """`; did you mean FOLDER?` if `locate` finds the data one folder down or up, else "".

    like: of several folders, one with this in its name is preferred. upwards: whether to try the
    folder above; `/` is never suggested.
    """
    with suppress(OSError, InputError):
        if locate(root) is not None:
            return ""
        for path in neighbours(root, like=like, upwards=upwards):
            with suppress(OSError, InputError):
                if locate(Path(path)) is not None:
                    return f"; did you mean {path}?"
    return ""


def neighbours(root: Path, *, like: str, upwards: bool) -> list[str]:
    """The folders in `root`, those with `like` in their names first, and then the one above."""
    inside = visible_folders(root)
    inside.sort(key=lambda name: like not in name.casefold().replace("-", ""))
    folders = [os.path.join(root, name) for name in inside[:MAX_FOLDERS]]
    parent = os.path.dirname(os.path.abspath(root))
    # An empty folder beside the data is where a download was meant to go.
    is_empty = os.path.isdir(root) and not os.listdir(root)
    if upwards and not is_empty and parent != os.path.dirname(parent):
        folders.append(parent)
    return folders


def visible_folders(folder: Path) -> list[str]:
    """Sorted names of the folders in a folder; none where it cannot be listed."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if not is_hidden(entry.name) and entry.is_dir()
        )
    return []


def unpacking(root: Path, archives: Sequence[str]) -> str | None:
    """The command that unpacks the first of `archives` that is in `root`, or is `root` itself."""
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
