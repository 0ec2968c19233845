"""Text files that list images: their lines, and whether the images are there."""

import os
from collections.abc import Iterable
from pathlib import Path

from console import InputError

from .folder import cannot_list


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(number from 1, text) of every line that is not blank; InputError if there is none."""
    try:
        # Names of files need not be valid UTF-8; such bytes are kept as os.listdir keeps them.
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = [(number, line.rstrip()) for number, line in enumerate(file, start=1)]
    except FileNotFoundError:
        raise InputError(f"{path} is missing; unpack the archive again") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    lines = [(number, text) for number, text in lines if text]
    if not lines:
        raise InputError(f"{path} is empty: expected a line per image")
    return lines


def check_images(listed: Path, images: Iterable[tuple[int, str]]) -> None:
    """Raise InputError, naming the first, unless all `images` that the file `listed` names exist.

    images: number of the line, and path. Every folder is listed once: asking for 100,000 files one
    by one takes minutes on a network disk.
    """
    present: dict[str, set[str]] = {}
    missing = []
    for number, path in images:
        folder, name = os.path.split(path)
        if folder not in present:
            present[folder] = names_in(folder)
        if name not in present[folder]:
            missing.append((number, path))
    if missing:
        number, path = missing[0]
        more = f", nor {len(missing) - 1} others that it lists" if len(missing) > 1 else ""
        raise InputError(
            f"{listed}, line {number}: there is no image {path}{more}; unpack the archive again"
        )


def names_in(folder: str) -> set[str]:
    """Names of all that lies in the folder; none where there is no folder."""
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        cannot_list(error)
