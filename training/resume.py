"""Interrupted runs: who may write X.pth, the file X.resume, and the signals that end a run."""

import contextlib
import glob
import json
import mmap
import os
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from console import (
    InputError,
    Interrupted,
    OthersLeft,
    handling_signals,
    offer,
    say,
    warn,
)
from models import checkpoint, formats
from safe_io import atomic_path, locked, sha256, sibling, start_time

from . import distributed
from .record import outputs, start_anew, warn_of_other_images

# Of the content of X.resume; a new number wherever the state of an older run would be misread.
VERSION = 1
# Options that may differ between a run and its continuation: they change no number on one device.
MAY_CHANGE = frozenset(
    "a b r data_dir device download log_interval num_workers overwrite resume save_minutes".split()
)
# End record of a ZIP archive, and the length of the comment that `seal` adds to it.
END, DIGITS = b"PK\5\6", 8
WRITTEN = (".pth", "_last.pth", ".resume", ".csv", "_layers.csv", ".json", "_last.json")


@contextlib.contextmanager
def claim(path: Path, settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Lock X.pth; yields the record of the run if --resume finds it finished, else {}.

    With --keep both, X_last.pth is locked, too. settings: the options by name, and parent_sha256
    where it is known. Of several processes the first one locks and decides. Raises InputError as
    `locked` and `begin` do.
    """
    with contextlib.ExitStack() as locks:

        def decide() -> dict[str, Any]:
            for output in outputs(path, settings["keep"]).values():
                locks.enter_context(locked(output))
            return begin(path, settings)

        yield distributed.on_first(decide)
    # Not after an error: the other processes may be waiting for this one, and torchrun ends them.
    distributed.stop()


def begin(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the run that writes X.pth if --resume finds it finished, {} if it is to train.

    Temporary files of a killed run are deleted, and nothing else. Raises InputError where files
    would be replaced without --overwrite, which wins over --resume: those of an unfinished run, and
    checkpoints of another one.
    """
    for ending in WRITTEN:
        remove_half_written(sibling(path, ending))
    unfinished = state_files(path)
    there = [file for file in outputs(path, settings["keep"]).values() if file.exists()]
    if settings["overwrite"]:
        for file in there:
            say(f"{file} exists; it is replaced when the first epoch to keep is complete")
        return {}
    if unfinished:
        if not settings["resume"]:
            raise InputError(
                f"{unfinished[0]} is of an unfinished run; add --resume to go on, or --overwrite "
                "to begin anew"
            )
        return {}
    record = finished_record(path) if settings["resume"] else {}
    if record:
        check_settings(path, record, settings)
    elif there:
        fault = "without the record of a finished run" if settings["resume"] else "already"
        raise InputError(f"{there[0]} exists {fault}; {replace_advice()}")
    elif settings["resume"]:
        say(f"no {sibling(path, '.resume')} to resume from; starting anew")
    return record


def replace_advice() -> str:
    """What to do about a file that is there."""
    return f"give another name{offer(', or add --overwrite to replace it')}"


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
    """X.json with its settings if it is of a finished run whose checkpoints are all there, else {}.

    A checkpoint counts if it has the SHA-256 that its JSON file says.
    """
    try:
        record = read_record(path)
        args = record.get("args", {})
        for output in outputs(path, args.get("keep", "best")).values():
            of_output = read_record(output)
            if not (of_output["finished"] and of_output["sha256"] == sha256(output)):
                return {}
        return {**args, **record}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def read_record(path: Path) -> dict[str, Any]:
    """Content of X.json."""
    return json.loads(sibling(path, ".json").read_text(encoding="utf-8"))


def check_settings(path: Path, record: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raise InputError naming the first setting that differs from that of the finished run."""
    for key, new in settings.items():
        # The image size of the data set itself is recorded once it is known.
        default_size = key == "image_size" and new is None
        # A record of an older version lacks the options that came later.
        if key not in record or default_size:
            continue
        old = record[key]
        # Another name of theta_r may do, but none would leave out T along the way.
        same = None not in (old, new) if key == "r" else key in MAY_CHANGE
        if old != new and not same:
            raise InputError(
                f"{path} is of a finished run with {another(key, old, new)}; {replace_advice()}"
            )


def another(key: str, old: Any, new: Any) -> str:
    """Words for a setting that was `old` and is `new`; of lists the first entries that differ."""
    if isinstance(old, list) and isinstance(new, list):
        pairs = (pair for pair in zip(old, new, strict=False) if pair[0] != pair[1])
        key, (old, new) = f"list of {key}", next(pairs, (len(old), len(new)))
    return f"another {key} ({old}, now {new})"


def is_finished(path: Path, record: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether there is nothing to train, which is said. record: of a finished run, or {}.

    facts: of the run as X.json has them, from the data and the parent that are given now. Raises
    InputError where they are others; images that have changed since are a warning.
    """
    if not record:
        return False
    images = facts.get("images")
    others = {key: value for key, value in facts.items() if key != "images"}
    check_settings(path, record, {**others, "processes": distributed.world_size()})
    warn_of_other_images(path, record.get("images"), images, advice=f"; {replace_advice()}")
    say(f"{path} is finished; nothing to do")
    return True


def seal(path: Path) -> None:
    """Add to a ZIP archive that has no comment the checksum of all its bytes, as its comment."""
    with open(path, "r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(DIGITS.to_bytes(2, "little"))
    with open(path, "ab") as file:
        file.write(checksum(path))


def is_whole(path: Path) -> bool:
    """Whether a file is as `seal` left it; True for an archive of before there were seals."""
    if path.stat().st_size < 30:
        return False
    with open(path, "rb") as file:
        file.seek(-22, os.SEEK_END)
        end = file.read()
    if end.startswith(END) and end.endswith(b"\0\0"):
        return True
    return end[-DIGITS:] == checksum(path, but=DIGITS)


def checksum(path: Path, *, but: int = 0) -> bytes:
    """CRC-32 of a file without its last bytes, as hexadecimal digits."""
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        memoryview(content) as whole,
        whole[: len(whole) - but] as part,
    ):
        return b"%08x" % zlib.crc32(part)


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
            seal(temporary)
            if self.newest.exists() and not self.newest_is_damaged:
                os.replace(self.newest, self.previous)
        self.newest_is_damaged = False
        self.last_save = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, None where there is none.

        Raises InputError where both are damaged, and for a state of another version of this
        program or of a run with other settings.
        """
        damaged = []
        for file in filter(Path.exists, (self.newest, self.previous)):
            try:
                content = formats.unpickle(file) if is_whole(file) else {}
                config, version = content["config"], content.get("version")
            except (InputError, OSError, KeyError, TypeError):
                damaged.append(str(file))
                continue
            if version != VERSION:
                raise InputError(
                    f"{file} was written by another version of this program; finish the run with "
                    f"that version, or {start_anew()}"
                )
            self.check(config)
            self.newest_is_damaged = file != self.newest
            if damaged:
                warn(f"{damaged[0]} is damaged; going back to the one before")
            return content
        if damaged:
            raise InputError(
                f"no state to resume from in {' and '.join(damaged)}, damaged; {start_anew()}"
            )
        return None

    def check(self, config: Mapping[str, Any]) -> None:
        """Raise InputError naming the first setting that differs from that of the saved run."""
        for key in {**config, **self.config}:
            old, new = config.get(key), self.config.get(key)
            if old != new:
                raise InputError(
                    f"{self.newest} is of a run with {another(key, old, new)}; give the same "
                    f"command, or {start_anew()}"
                )

    def remove(self) -> None:
        """Delete both files: the run is finished, or given up."""
        if self.writes:
            # The older one first: alone it would be of an epoch before that of X.pth.
            for file in (self.previous, self.newest):
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
