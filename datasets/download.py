"""Download a data set: whole or not at all, even when several processes do it at once."""

import os
import tempfile
from pathlib import Path

from console import InputError


def fetch(name: str, root: Path, kind: str, *, origin: str) -> None:
    """Download the data set `name` into `root`, which is created where needed.

    kind: torchvision's class of it. origin: where else to get it. Raises InputError when the
    download fails; no part of it is left then.
    """
    from torchvision import datasets

    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".downloading-") as temporary:
            getattr(datasets, kind)(temporary, download=True)
            for folder in sorted(Path(temporary).iterdir()):
                if folder.is_dir():  # files are archives that have been unpacked
                    for archive in folder.glob("*.tar.gz"):
                        archive.unlink()
                    move(folder, root / folder.name)
    # A broken connection or archive may raise anything: URLError, RuntimeError, TarError, EOFError.
    except Exception as error:
        raise InputError(
            f"cannot download {name} to {root}: {reason(error)}; try again, or get {origin} by "
            "hand and unpack it there"
        ) from error


def move(folder: Path, target: Path) -> None:
    """Rename `folder` to `target`; where another process was faster, its folder stays."""
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():
            raise


def reason(error: Exception) -> str:
    """The cause of a failed download, in one line."""
    # URLError wraps the error of the connection.
    error = getattr(error, "reason", None) or error
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return " ".join(text.split())
