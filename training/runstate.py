"""The state of an unfinished run: the file to resume from, the lock, the signals that end it."""

import contextlib
import glob
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from models import checkpoint
from models.checkpoint import beside
from safe_io import InputError, Interrupted, atomic_path, say, warn

from . import distributed

# What may differ between a run and its continuation: it changes no number on the same device.
MAY_CHANGE = {
    "a",
    "b",
    "r",
    "data_dir",
    "device",
    "download",
    "log_interval",
    "num_workers",
    "overwrite",
    "resume",
    "save_minutes",
}


class Busy(InputError):
    """Another run is writing the same files."""


class RunState:
    """Saves and loads X.resume, and remembers that the run is asked to stop.

    The previous state is kept as X.resume.prev, for a new one that turns out to be cut short.
    config: what must be the same when the run goes on, in JSON's types.
    """

    def __init__(self, path: Path, *, config: Mapping[str, Any], save_minutes: float) -> None:
        self.file = beside(path, ".resume")
        self.previous = beside(path, ".resume.prev")
        self.config = json.loads(json.dumps(dict(config)))
        self.save_seconds = 60 * save_minutes
        self.last_save = time.monotonic()
        self.stop_signal: int | None = None
        self.newest_is_damaged = False

    def is_due(self) -> bool:
        """Whether to save now, in the middle of an epoch."""
        late = time.monotonic() - self.last_save >= self.save_seconds
        return late or self.stop_signal is not None

    def save(self, content: Mapping[str, Any]) -> None:
        """Write the state, whole or not at all; what was there becomes the previous state."""
        with atomic_path(self.file) as temporary:
            checkpoint.save(temporary, {"config": self.config, **content})
            if self.file.exists() and not self.newest_is_damaged:
                os.replace(self.file, self.previous)
        self.newest_is_damaged = False
        self.last_save = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, None where there is none.

        Raises InputError where both are damaged, or where the command line is another than that
        of the run.
        """
        files = [file for file in (self.file, self.previous) if file.exists()]
        for file in files:
            try:
                content = checkpoint.unpickle(file)
                config = content["config"]
            except (InputError, KeyError, TypeError):
                warn(f"{file} is damaged" + ("; going back to the one before" * (file == files[0])))
                continue
            self.newest_is_damaged = file != self.file
            self.check(config)
            return content
        if files:
            raise InputError(
                f"no state to resume from in {self.file}; add --overwrite to begin anew"
            )
        return None

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise InputError naming the first setting that is not that of the run."""
        for key in {**config, **self.config}:
            old, new = config.get(key), self.config.get(key)
            if old != new:
                raise InputError(
                    f"{self.file} is of a run with another {key} ({old}, now {new}); give the same "
                    "command, or start anew with --overwrite"
                )

    def remove(self) -> None:
        """Delete both files: the run is finished, or begins anew."""
        for file in (self.file, self.previous):
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def run_of(
    path: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool
) -> Iterator[bool]:
    """Hold the lock of X.pth; give whether there is anything to train for it.

    settings: the arguments, and parent_sha256 where it is known. Of several processes the first
    decides and locks. Raises InputError as `locked` and `begin` do.
    """
    with contextlib.ExitStack() as stack:

        def decide() -> bool:
            stack.enter_context(locked(path))
            return begin(path, settings, resume=resume, overwrite=overwrite)

        yield distributed.on_first(decide)
    # Not after an error: the other processes may be waiting for this one, and torchrun ends them.
    distributed.stop()


def begin(path: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> bool:
    """Whether there is anything to train for X.pth; with `overwrite` the old state is deleted.

    What a run that was killed had half written is deleted.
    Raises InputError for an unfinished run that the command line does not speak of, and for a
    finished one of other settings.
    """
    for ending in (
        ".pth",
        "_last.pth",
        ".resume",
        ".csv",
        "_layers.csv",
        ".json",
        "_last.json",
        ".lock",
    ):
        remove_half_written(beside(path, ending))
    state = [beside(path, ending) for ending in (".resume", ".resume.prev")]
    unfinished = [file for file in state if file.exists()]
    if unfinished and not resume and not overwrite:
        raise InputError(
            f"{unfinished[0]} is of an unfinished run; add --resume to go on, or --overwrite to "
            "begin anew"
        )
    if overwrite and not resume:
        for file in unfinished:
            file.unlink()
    if resume and not unfinished:
        record = finished_record(path)
        if record:
            check_settings(path, record, settings)
            say(f"{path} is finished; nothing to do")
            return False
        say(f"no {state[0]} to resume from; starting anew")
    if path.exists() and not (resume and unfinished):
        say(f"{path} exists; it is replaced when the first epoch to keep is complete")
    return True


def remove_half_written(path: Path) -> None:
    """Delete what processes that are gone have left of writing `path` (see atomic_path)."""
    for file in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        pid = file.name.split(".")[-2]
        if pid.isdigit() and start_time(int(pid)) is None:
            file.unlink(missing_ok=True)


def finished_record(path: Path) -> dict[str, Any]:
    """X.json if it is of a finished run and speaks of the X.pth that is there, else {}."""
    try:
        record = json.loads(beside(path, ".json").read_text(encoding="utf-8"))
        finished = record["finished"] and record["sha256"] == checkpoint.sha256(path)
        return {**record.get("args", {}), **record} if finished else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def check_settings(path: Path, record: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise InputError naming the first setting that is not that of the finished run."""
    for key, new in settings.items():
        # The size that a data set has of its own is recorded when it is known.
        own = key == "image_size" and new is None
        if key not in MAY_CHANGE and not own and record.get(key) != new:
            raise InputError(
                f"{path} is of a finished run with another {key} ({record.get(key)}, now {new}); "
                "give another name, or leave out --resume to replace it"
            )


@contextlib.contextmanager
def stoppable(state: RunState) -> Iterator[None]:
    """Let SIGINT and SIGTERM ask `state` to stop; a second signal stops at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        if state.stop_signal is not None:
            raise Interrupted("stopped at once; --resume goes on from the last state", number)
        state.stop_signal = number

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
            if is_running(holder):
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


def is_running(holder: Mapping[str, Any]) -> bool:
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
    try:
        os.kill(pid, 0)
    except PermissionError:
        return "unknown"
    except (OSError, ValueError):
        return None
    return "unknown"
