"""The state of an unfinished run: the file to resume from, and the signals that end it."""

import contextlib
import glob
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from console import InputError, Interrupted, SaidByFirst, say, under_torchrun, warn
from models import checkpoint
from safe_io import atomic_path, locked, sha256, sibling, start_time

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


class RunState:
    """Saves and loads X.resume, and remembers that the run is asked to stop.

    The previous state is kept as X.resume.prev, for a new one that turns out to be cut short.
    config: what must be the same when the run goes on, in JSON's types.
    """

    def __init__(self, path: Path, *, config: Mapping[str, Any], save_minutes: float) -> None:
        self.file = sibling(path, ".resume")
        self.previous = sibling(path, ".resume.prev")
        self.config = json.loads(json.dumps(dict(config)))
        self.save_seconds = 60 * save_minutes
        self.last_save = time.monotonic()
        self.stop_signal: int | None = None
        self.newest_is_damaged = False
        self.writes = distributed.rank() == 0

    def is_due(self) -> bool:
        """Whether to save now, in the middle of an epoch, in the process that writes."""
        if not self.writes:
            return False
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
    ):
        remove_half_written(sibling(path, ending))
    unfinished = state_files(path)
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
        say(f"no {sibling(path, '.resume')} to resume from; starting anew")
    if path.exists() and not (resume and unfinished):
        say(f"{path} exists; it is replaced when the first epoch to keep is complete")
    return True


def state_files(path: Path) -> list[Path]:
    """The states of an unfinished run that writes X.pth, the newest first."""
    files = [sibling(path, ending) for ending in (".resume", ".resume.prev")]
    return [file for file in files if file.exists()]


def remove_half_written(path: Path) -> None:
    """Delete what processes that are gone have left of writing `path` (see atomic_path)."""
    for file in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        pid = file.name.split(".")[-2]
        if pid.isdigit() and start_time(int(pid)) is None:
            file.unlink(missing_ok=True)


def finished_record(path: Path) -> dict[str, Any]:
    """X.json if it is of a finished run and speaks of the X.pth that is there, else {}."""
    try:
        record = json.loads(sibling(path, ".json").read_text(encoding="utf-8"))
        finished = record["finished"] and record["sha256"] == sha256(path)
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
    """Let SIGINT and SIGTERM ask `state` to stop; a second signal stops at once.

    Not under torchrun, which passes on a signal that its processes have had already. The first of
    them saves and leaves after its step, for which it needs the others; then they fail, or torchrun
    kills them.
    """
    repeated = under_torchrun()

    def ask(number: int, frame: FrameType | None) -> None:
        if state.stop_signal is not None and not repeated:
            raise Interrupted("stopped at once; --resume goes on from the last state", number)
        if state.stop_signal is None and sys.stderr.isatty():
            # print() may be at work where the signal comes.
            os.write(sys.stderr.fileno(), b"\nstopping after this iteration; again: at once\n")
        state.stop_signal = state.stop_signal or number

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    except RuntimeError as error:
        if state.writes or state.stop_signal is None:
            raise
        raise SaidByFirst("the first process has left") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
