"""Download a data set: whole or not at all, even when several processes do it at once."""

import glob
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from console import InputError
from safe_io import is_running

# Of the folder for a download; the number of the process follows. The name of the machine is in
# it, since a process of another machine may be downloading to the same disk.
PREFIX = f".downloading-{socket.gethostname()}-"

# Seconds after which a connection that sends nothing is given up.
SILENCE = 60


def fetch(
    name: str,
    root: Path,
    download: Callable[[Path], None],
    locate: Callable[[Path], Path | None],
    *,
    origin: str,
) -> None:
    """Put the data set `name` into `root`, which is created where needed.

    download: puts it into the folder it is given. locate: finds it in a folder. origin: where else
    to get it. Raises InputError when the download fails; nothing is left of it then, the created
    folders included.
    """
    with new_folder(name, root), limited_silence():
        try:
            remove_leftovers(root)
            prefix = f"{PREFIX}{os.getpid()}-"
            with tempfile.TemporaryDirectory(dir=root, prefix=prefix) as temporary:
                download(Path(temporary))
                for folder in sorted(Path(temporary).iterdir()):
                    # What lies beside the folders are the archives, which have been unpacked.
                    if folder.is_dir():
                        move(folder, root / folder.name)
        # A broken connection or archive may raise anything: URLError, RuntimeError, TarError,
        # EOFError, ...
        except Exception as error:
            raise InputError(
                f"cannot download {name} to {root}: {reason(error)}; try again, or get {origin} by "
                "hand and unpack it there"
            ) from error
    if locate(root) is None:
        raise InputError(
            f"{name} has been downloaded, but is not found in {root}; if a folder there is in its "
            "way, move that away"
        )


def move(folder: Path, target: Path) -> None:
    """Rename `folder` to `target`; where another process was faster, its folder stays."""
    try:
        os.rename(folder, target)
    except OSError:
        if not target.is_dir():
            raise


def remove_leftovers(root: Path) -> None:
    """Delete what killed processes of this machine have half downloaded."""
    for folder in root.glob(f"{glob.escape(PREFIX)}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not is_running(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_folder(name: str, root: Path) -> Iterator[None]:
    """Create the folder and those above it; if the block fails, remove those created."""
    created = [path for path in (root, *root.parents) if not os.path.exists(path)]
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot download {name} to {root}: {reason(error)}") from error
    try:
        yield
    except BaseException:
        for path in created:
            # Not those that another process has filled in the meantime.
            with suppress(OSError):
                path.rmdir()
        raise


@contextmanager
def limited_silence() -> Iterator[None]:
    """Let connections fail that send nothing for long; by default they would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def reason(error: Exception) -> str:
    """What went wrong, in words."""
    # URLError wraps the error of the connection.
    error = getattr(error, "reason", None) or error
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return " ".join(text.split())
