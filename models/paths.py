"""Paths of checkpoints: a bare name means ckpt/NAME beside the scripts."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from console import InputError, say
from safe_io import check_output

from . import split_zip

# Files of parameters, or indexes of their parts, that `save_pretrained` writes into a folder.
SAVED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
CKPT_DIR = Path(__file__).resolve().parent.parent / "ckpt"


def locate(name: str) -> Path:
    """Return the path of the checkpoint `name` for reading: for a bare name ckpt/NAME, then ./NAME.

    A folder stands for the parameters that `save_pretrained` of Hugging Face or timm wrote there.
    If X.pth is missing and an archive X.zip exists, alone or with parts X.z01, ..., X.pth is
    unpacked from it first. Raises InputError if there is neither, or the archive is incomplete.
    """
    path = path_of(name)
    # os.path, as pathlib raises OSError for a name that is too long.
    if os.path.isdir(path):
        inside = inside_of(path)
        if inside == path:
            raise InputError(f"{path} is a folder; give a checkpoint file")
        return inside
    if os.path.isfile(path):
        return path
    if os.path.exists(path):
        # Nobody may ever write to a pipe.
        raise InputError(f"{path} is no regular file; give a checkpoint file")
    archive = archive_of(path)
    if not os.path.isfile(archive):
        raise InputError(
            f"checkpoint {path} is missing; copy the original repository's split archives into "
            f"{CKPT_DIR} (see README.md there), run steps 1 and 2, or run step 3 without -r, -a "
            "and -b for the shipped narrow network"
        )
    split_zip.join(archive, path)
    say(f"{path} unpacked from {archive}")
    return path


def inside_of(path: Path) -> Path:
    """Return the file of parameters in a folder; `path` where it is none, or holds none."""
    return next((path / f for f in SAVED if os.path.isfile(path / f)), path)


def path_of(name: str) -> Path:
    """Return the first path of `locate` with a file or an archive, else the first of all."""
    candidates = [Path(name)]
    if os.path.dirname(name) == "":
        candidates.insert(0, CKPT_DIR / name)
    for path in candidates:
        if os.path.exists(path) or os.path.isfile(archive_of(path)):
            return path
    return candidates[0]


def archive_of(path: Path) -> Path:
    """Return the path of the archive of a checkpoint: X.zip for X.pth."""
    return path.parent / f"{path.stem}.zip"


def expand(names: Iterable[str]) -> list[str]:
    """Return the names, shell patterns replaced by their matches (in the folders of `locate`).

    A file that occurs twice, under whatever spelling or link, hard ones included, is taken once.
    Raises InputError for a pattern without a match.
    """
    expanded = []
    for name in names:
        if not glob.has_magic(name) or os.path.exists(path_of(name)):
            expanded.append(name)
            continue
        folders = ["" if os.path.dirname(name) else glob.escape(str(CKPT_DIR)), "."]
        matches = next(filter(None, (glob.glob(os.path.join(f, name)) for f in folders)), None)
        if not matches:
            raise InputError(f"no file matches {name}")
        expanded += sorted(matches)
    files: dict[object, str] = {}
    for name in expanded:
        path = inside_of(path_of(name))
        try:
            status = os.stat(path)
            files.setdefault((status.st_dev, status.st_ino), name)
        except OSError:  # an archive stands for it, or nothing
            files.setdefault(path.resolve(), name)
    return list(files.values())


def output_path(name: str) -> Path:
    """Return the path of the checkpoint `name` for writing; for a bare name ckpt/ is created.

    Raises InputError if no file can be written there.
    """
    if os.path.dirname(name):
        return check_output(Path(name))
    try:
        CKPT_DIR.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {CKPT_DIR}: {error.strerror}") from error
    return check_output(CKPT_DIR / name)
