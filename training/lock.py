"""X.lock: no two runs write the same files. Who holds one, and whether that process is gone."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.checkpoint import beside
from safe_io import InputError, is_running


class Busy(InputError):
    """Another run is writing the same files."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold X.lock while a run writes X.pth. Raises InputError while another run holds it.

    A lock file and not flock, which the processes that load images would inherit.
    """
    file = beside(path, ".lock")
    me = {"host": socket.gethostname(), "pid": os.getpid(), "started": start_time(os.getpid())}
    for _ in range(2):
        try:
            create(file, json.dumps(me))
            break
        except FileExistsError:
            holder = read_lock(file)
            if holder_runs(holder):
                raise Busy(
                    f"{path} is being written by process {holder.get('pid')} on "
                    f"{holder.get('host')}; wait for it, give another name, or remove {file} if "
                    "that process is gone"
                ) from None
            remove_stale(file, holder)
        except OSError as error:
            raise InputError(f"cannot write {file}: {error.strerror}") from error
    else:
        raise Busy(f"another run has just taken {file}; give another name")
    try:
        yield
    finally:
        if read_lock(file) == me:
            file.unlink(missing_ok=True)


def create(file: Path, text: str) -> None:
    """Create `file` with `text`; raises FileExistsError where it exists, OSError on a full disk."""
    # Linked when it is complete: an empty lock would be taken for a stale one.
    mine = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        mine.write_text(text, encoding="utf-8")
        try:
            os.link(mine, file)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            with open(file, "x", encoding="utf-8") as lock:
                lock.write(text)
    finally:
        mine.unlink(missing_ok=True)


def remove_stale(file: Path, holder: Mapping[str, Any]) -> None:
    """Remove a lock whose holder is gone, but not one that has just taken its place."""
    # Only one of several runs that have seen the stale lock can rename it.
    mine = file.with_name(f".{file.name}.stale.{os.getpid()}.tmp")
    try:
        os.replace(file, mine)
    except FileNotFoundError:
        return
    try:
        if read_lock(mine) != holder:
            with contextlib.suppress(FileExistsError):
                create(file, mine.read_text(encoding="utf-8"))
    finally:
        mine.unlink()


def read_lock(file: Path) -> dict[str, Any]:
    """Who holds the lock; {} for a file that does not say."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def holder_runs(holder: Mapping[str, Any]) -> bool:
    """Whether the process that holds a lock still runs; yes for one on another host."""
    if not holder:
        return False
    if holder.get("host") != socket.gethostname():
        return True
    pid = holder.get("pid")
    started = start_time(pid) if isinstance(pid, int) else None
    return started is not None and started == holder.get("started")


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
