"""Files that are never half written, and the lock that keeps two runs off the same ones.

Standard library only.
"""

import contextlib
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from console import InputError, warn


def check_output(path: Path) -> Path:
    """Return `path`; raise InputError, before the work is done, where no file can be written."""
    path = Path(path)
    if os.path.isdir(path):
        raise InputError(f"cannot write {path}: it is a folder; give a file name")
    if os.path.exists(path) and not os.path.isfile(path):
        # Renaming a file onto /dev/null would replace the device.
        raise InputError(f"cannot write {path}: it is no regular file; give another file name")
    if not os.path.isdir(path.parent):
        raise InputError(
            f"cannot write {path}: the folder {path.parent} does not exist; create it first"
        )
    try:
        # os.access says yes to root on a read-only disk, so the folder is tried.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    return path


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; at success fsync and rename it, else remove it.

    A reader sees the old file or the new one, never a part. An OSError (disk full, folder gone)
    becomes InputError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"cannot write {path}: {reason}; what was there before is untouched"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_running(pid: int) -> bool:
    """Whether there is a process of that number; yes where that cannot be asked."""
    if os.name != "posix":  # os.kill would end it
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError):
        return False
    return True


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut; file systems that cannot do it are let be."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def atomic_write(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sibling(path: Path, ending: str) -> Path:
    """The file of the same run beside a checkpoint: X.pth and ".csv" give X.csv."""
    return path.with_name(path.name.removesuffix(".pth") + ending)


def sha256(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits. Raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class Busy(InputError):
    """Another run is writing the same files."""


# Lock files that this process holds. Closing any descriptor of such a file would drop its lock, so
# none is opened a second time.
HELD: set[Path] = set()


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold X.lock, the lock of X.pth, so that no other run writes the same files.

    A POSIX record lock: the processes that load images do not inherit it, it ends with its process
    however that ends, and on a shared disk it holds between machines. The file stays and says who
    held it last. Where a disk has no locks, a warning is all there is.

    wait: until the lock is free. Raises Busy otherwise while another process, or another part of
    this one, holds it; InputError where the lock file cannot be written.
    """
    file = sibling(path, ".lock").resolve()
    if file in HELD:
        raise Busy(f"{path} is being written by this process already; give another name")
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from error
    try:
        lock_descriptor(descriptor, path, wait=wait)
        HELD.add(file)
        with contextlib.suppress(OSError):  # on a full disk the lock is held without a name
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        HELD.discard(file)
        os.close(descriptor)


def lock_descriptor(descriptor: int, path: Path, *, wait: bool) -> None:
    """Lock the open lock file of `path`. Raises Busy, naming its holder; warns without locks."""
    try:
        import fcntl

        fcntl.lockf(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):
        holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace") or "another process"
        raise Busy(
            f"{path} is being written by {holder}; wait for it, or give another name"
        ) from None
    except (ImportError, OSError) as error:
        warn(f"{path} cannot be locked here ({error}); start no second run that writes it")


def start_time(pid: int) -> str | None:
    """When a process started (ticks since boot), None for one that is gone or a zombie.

    It tells a process from a later one with the same number. Without /proc: only whether there is
    such a process.
    """
    try:
        # The second field, the name, is in parentheses and may hold blanks.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self").exists():
            return None
    return "unknown" if is_running(pid) else None
