"""Interrupted runs: who may write X.pth, the file X.resume, and the signals that end a run."""

import contextlib
import glob
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from console import (
    InputError,
    Interrupted,
    OthersLeft,
    handling_signals,
    say,
    warn,
)
from models import checkpoint, formats
from safe_io import atomic_path, locked, sha256, sibling, start_time

from . import distributed
from .record import outputs

# Of the content of X.resume; a new number wherever the state of an older run would be misread.
VERSION = 1
# Options that may differ between a run and its continuation: they change no number on one device.
MAY_CHANGE = frozenset(
    "a b r data_dir device download log_interval num_workers overwrite resume save_minutes".split()
)
WRITTEN = (".pth", "_last.pth", ".resume", ".csv", "_layers.csv", ".json", "_last.json")


@contextlib.contextmanager
def claim(path: Path, settings: Mapping[str, Any]) -> Iterator[bool]:
    """Lock X.pth; yields False if the run is already finished.

    With --keep both, X_last.pth is locked, too. settings: the options by name, and parent_sha256
    where it is known. Of several processes the first one locks and decides. Raises InputError as
    `locked` and `begin` do.
    """
    with contextlib.ExitStack() as locks:

        def decide() -> bool:
            for output in outputs(path, settings["keep"]).values():
                locks.enter_context(locked(output))
            return begin(path, settings, resume=settings["resume"], overwrite=settings["overwrite"])

        yield distributed.on_first(decide)
    # Not after an error: the other processes may be waiting for this one, and torchrun ends them.
    distributed.stop()


def begin(path: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> bool:
    """Whether a run that writes X.pth has anything to train; with `overwrite` X.resume is deleted.

    Temporary files of a killed run are deleted. Raises InputError for an unfinished run where
    neither --resume nor --overwrite is given, and for a finished one of other settings.
    """
    for ending in WRITTEN:
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
    """Delete the temporary files of `path` whose process is gone (see atomic_path)."""
    for file in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        pid = file.name.split(".")[-2]
        if pid.isdigit() and start_time(int(pid)) is None:
            file.unlink(missing_ok=True)


def finished_record(path: Path) -> dict[str, Any]:
    """X.json with its settings if it is of a finished run and describes this X.pth, else {}."""
    try:
        record = json.loads(sibling(path, ".json").read_text(encoding="utf-8"))
        finished = record["finished"] and record["sha256"] == sha256(path)
        return {**record.get("args", {}), **record} if finished else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def check_settings(path: Path, record: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise InputError naming the first setting that differs from that of the finished run."""
    for key, new in settings.items():
        # The image size of the data set itself is recorded once it is known.
        default_size = key == "image_size" and new is None
        # A record of an older version lacks the options that came later.
        if key in MAY_CHANGE or key not in record or default_size:
            continue
        if record[key] != new:
            raise InputError(
                f"{path} is of a finished run with another {key} ({record.get(key)}, now {new}); "
                "give another name, or leave out --resume to replace it"
            )


class ResumeFile:
    """X.resume, the state of an unfinished run; remembers whether a signal asks the run to stop.

    The state before the newest is X.resume.prev, in case the newest turns out to be cut short.
    config: the settings that must be the same when the run goes on, in JSON's types.
    """

    def __init__(self, path: Path, *, config: Mapping[str, Any], save_minutes: float) -> None:
        self.newest = sibling(path, ".resume")
        self.previous = sibling(path, ".resume.prev")
        self.config = json.loads(json.dumps(dict(config)))
        self.save_seconds = 60 * save_minutes
        self.last_save = time.monotonic()
        self.stop_signal: int | None = None
        self.newest_is_damaged = False
        self.writes = distributed.rank() == 0

    def is_due(self) -> bool:
        """Whether to save now, in the middle of an epoch; never in processes that do not write."""
        if not self.writes:
            return False
        late = time.monotonic() - self.last_save >= self.save_seconds
        return late or self.stop_signal is not None

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state, whole or not at all; the newest one becomes the previous one."""
        with atomic_path(self.newest) as temporary:
            checkpoint.save(temporary, {"version": VERSION, "config": self.config, **state})
            if self.newest.exists() and not self.newest_is_damaged:
                os.replace(self.newest, self.previous)
        self.newest_is_damaged = False
        self.last_save = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, None where there is none.

        Raises InputError where both are damaged, and for a state of another version of this
        program or of a run with other settings.
        """
        files = [file for file in (self.newest, self.previous) if file.exists()]
        for file in files:
            try:
                content = formats.unpickle(file)
                config, version = content["config"], content.get("version")
            except (InputError, KeyError, TypeError):
                warn(f"{file} is damaged" + "; going back to the one before" * (file != files[-1]))
                continue
            if version != VERSION:
                raise InputError(
                    f"{file} was written by another version of this program; finish the run with "
                    "that version, or start anew with --overwrite"
                )
            self.check(config)
            self.newest_is_damaged = file != self.newest
            return content
        if files:
            raise InputError(
                f"no state to resume from in {self.newest}; add --overwrite to begin anew"
            )
        return None

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise InputError naming the first setting that differs from that of the saved run."""
        for key in {**config, **self.config}:
            old, new = config.get(key), self.config.get(key)
            if old != new:
                raise InputError(
                    f"{self.newest} is of a run with another {key} ({old}, now {new}); give the "
                    "same command, or start anew with --overwrite"
                )

    def remove(self) -> None:
        """Delete both files: the run is finished."""
        if self.writes:
            for file in (self.newest, self.previous):
                file.unlink(missing_ok=True)


@contextlib.contextmanager
def stoppable(file: ResumeFile) -> Iterator[None]:
    """Let the signals that end a program ask the run to save and stop; a second one stops at once.

    Under torchrun a second signal is ignored, since torchrun forwards the one that its processes
    have received already. The first process saves and leaves after its step, for which it needs the
    others; these then fail, or torchrun kills them.
    """
    repeated = "TORCHELASTIC_RUN_ID" in os.environ

    def ask(number: int, frame: FrameType | None) -> None:
        if file.stop_signal is not None and not repeated:
            raise Interrupted("stopped at once; --resume goes on from the last state", number)
        if file.stop_signal is None and sys.stderr and sys.stderr.isatty():
            # Not print(), which the signal may have interrupted; the terminal may be closed.
            with contextlib.suppress(OSError):
                os.write(sys.stderr.fileno(), b"\nstopping after this iteration; again: at once\n")
        file.stop_signal = file.stop_signal or number

    try:
        with handling_signals(ask):
            yield
    except RuntimeError as error:
        # The collective operations of the others fail as soon as the first process has left.
        if file.writes or file.stop_signal is None:
            raise
        raise OthersLeft(distributed.LOST) from error
