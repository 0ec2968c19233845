"""Lines on the console, one-line errors with their exit codes, and command lines.

Standard library only, so that a wrong command line is answered at once.
"""

import argparse
import contextlib
import errno
import hashlib
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LARGEST = 2**63 - 1  # that torch takes for a seed or a size


# Signals that end a program in good order, where the system has them.
STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
)


class InputError(Exception):
    """Something the user gave is wrong. The message is one line: what, where, and what to do."""


class SaidByFirst(InputError):
    """An error of the first of several processes, which prints it."""


def say(message: str) -> None:
    """Print one line on stdout, at once; under torchrun only the first process does."""
    if is_first():
        print(ascii_line(message), flush=True)


def complain(error: InputError) -> None:
    """Print the one line of an error on stderr.

    Of the processes that torchrun has started on a machine, one prints an error that all have; what
    only one of them has is printed, too.
    """
    line = f"error: {ascii_line(error)}"
    if not isinstance(error, SaidByFirst) and not said_by_another(line):
        print(line, file=sys.stderr, flush=True)


def said_by_another(line: str) -> bool:
    """Whether another process of this torchrun and machine prints the line.

    The first that comes leaves a mark in the folder that torchrun makes for them. Where there is
    none, everyone has to print.
    """
    # FOLDER/LOCAL_RANK/error.json; "" where torchrun was told to make no folder.
    file = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))
    if not under_torchrun() or file.name != "error.json":
        return False
    mark = file.parent.parent / f"said_{hashlib.sha256(line.encode()).hexdigest()}"
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return True
    except OSError:
        return False
    return False


def warn(message: str) -> None:
    """Print one line on stderr; the run goes on."""
    if is_first():
        print(f"warning: {ascii_line(message)}", file=sys.stderr, flush=True)


def is_first() -> bool:
    """Whether this is the only process, or the first of those that torchrun has started."""
    return not under_torchrun() or os.environ["RANK"] == "0"


def under_torchrun() -> bool:
    """Whether torchrun has started this process.

    It sets all three variables. One alone is left over from something else, and must not silence
    the only process.
    """
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys()


class Interrupted(KeyboardInterrupt):
    """A signal has ended the run in good order. The message says how to go on."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


@contextlib.contextmanager
def handling_signals(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Let the signals that end a program call `handler`, but for those that nohup has it ignore."""
    before = {}
    for number in STOPPING:
        kept = number in STOPPING[2:] and signal.getsignal(number) is signal.SIG_IGN
        if not kept:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def ascii_line(text: object) -> str:
    """The text as one printable ASCII line (a file name may hold anything)."""
    line = " ".join(str(text).splitlines()).encode("ascii", "backslashreplace").decode("ascii")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line)


def run(main: Callable[[], int | None]) -> int:
    """Call `main` and return its exit code (None: 0), or 2 after one line for an InputError.

    Signals end with 128 + their number, after one line.
    """
    try:
        with ending_workers():
            return main() or 0
    except InputError as error:
        complain(error)
        return 2
    except (OSError, ImportError) as error:
        if os.strerror(errno.EMFILE) not in str(error):
            raise
        complain(InputError(f"{error}; raise the limit (ulimit -n)"))
        return 2
    except Interrupted as interruption:
        print(ascii_line(interruption), file=sys.stderr, flush=True)
        return 128 + interruption.number
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of stdout (head, less) has left; Python would complain again when it flushes at
        # exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


@contextlib.contextmanager
def ending_workers() -> Iterator[None]:
    """Kill the processes that load images as soon as an exception comes.

    torch waits five seconds for each that is busy when the frames of the exception are released.
    """
    try:
        yield
    except BaseException:
        end_workers()
        raise


def end_workers() -> None:
    """Kill this process's workers; they ignore SIGTERM, which multiprocessing would send."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


class ArgumentParser(argparse.ArgumentParser):
    """argparse whose complaint is one line like every other, and whose help shows defaults."""

    def __init__(self, description: str, prog: str | None = None, **options: Any) -> None:
        super().__init__(
            prog,
            description=description,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> None:
        raise InputError(f"{message} (see {self.prog} --help)")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults shown where they say something, the description left as it was written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        # Identity, as 0 == False, and "(default: 0)" does say something.
        if action.default is None or action.default is False or action.default == []:
            return action.help
        return super()._get_help_string(action)


def integer(minimum: int, maximum: int = LARGEST) -> Callable[[str], int]:
    """An argparse type: a whole number from `minimum` to `maximum`."""

    def parse(text: str) -> int:
        bound = f"at least {minimum}"
        with contextlib.suppress(ValueError):
            value = int(text)
            if minimum <= value <= maximum:
                return value
            if value > maximum:
                bound = f"at most {maximum}"
        raise argparse.ArgumentTypeError(f"must be a whole number of {bound}, not {text!r}")

    return parse


def number(minimum: float, *, above: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number of at least `minimum`, or above it."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            value = float(text)
            if math.isfinite(value) and (value > minimum if above else value >= minimum):
                return value
        bound = f"above {minimum:g}" if above else f"of at least {minimum:g}"
        raise argparse.ArgumentTypeError(f"must be a number {bound}, not {text!r}")

    return parse
