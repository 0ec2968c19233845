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
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LARGEST = 2**63 - 1  # that torch takes for a seed or a size
# None for every `run` under way, and the parsers made in it: first that of the user's command, and
# then, in a study, those of the scripts that it runs.
PARSERS: list[argparse.ArgumentParser | None] = []


# Signals that end a program in good order, where the system has them.
STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
)


# Whether the program is one that torchrun may start several times, as one run; see `run`.
distributes = False


class InputError(Exception):
    """Something the user gave is wrong. The message is one line: what, where, and what to do."""


class SaidByFirst(InputError):
    """An error of the first of several processes, which prints it."""


class OthersLeft(InputError):
    """Other processes of the run have ended. Printed unless one of them has said why."""


def say(message: str) -> None:
    """Print one line on stdout, at once; of several processes of one run only the first does."""
    if is_first():
        print(one_line(message), flush=True)


def complain(error: InputError) -> None:
    """Print the one line of an error on stderr.

    Of the processes that torchrun has started on a machine, one prints an error that all have; what
    only one of them has is printed, too.
    """
    line = f"error: {one_line(error)}"
    silent = isinstance(error, SaidByFirst) or (isinstance(error, OthersLeft) and marks())
    if not silent and not said_by_another(line):
        print_error(line)


def print_error(line: str) -> None:
    """Print a line on stderr, or on stdout where there is no stderr any more."""
    print(line, file=sys.stderr, flush=True)
    if getattr(sys.stderr, "failure", None):
        print(line, flush=True)


def said_by_another(line: str) -> bool:
    """Whether another process of this run and machine prints the line; else this one has to.

    The first that comes leaves a mark in the folder that torchrun makes for them.
    """
    folder = common_folder()
    if folder is None:
        return False
    mark = folder / f"said_{hashlib.sha256(line.encode()).hexdigest()}"
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return True
    except OSError:
        return False
    return False


def marks() -> list[Path]:
    """The marks of what processes of this run have said when they ended."""
    folder = common_folder()
    return list(folder.glob("said_*")) if folder else []


def common_folder() -> Path | None:
    """The folder that torchrun makes for the processes of a machine; None where there is none."""
    # FOLDER/LOCAL_RANK/error.json; "" where torchrun was told to make no folder.
    file = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", ""))
    return file.parent.parent if is_shared() and file.name == "error.json" else None


def warn(message: str) -> None:
    """Print one line on stderr; the run goes on."""
    if is_first():
        print_error(f"warning: {one_line(message)}")


def is_first() -> bool:
    """Whether this is the only process of the run, or the first."""
    return not is_shared() or os.environ["RANK"] == "0"


def is_shared() -> bool:
    """Whether several processes of one run share the console."""
    return distributes and under_torchrun() and os.environ["WORLD_SIZE"] != "1"


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


def one_line(text: object) -> str:
    """The text as one printable line, with escapes for what a console cannot show.

    A file name may hold anything, line ends and commands to the terminal among it.
    """
    line = "".join(map(printed, " ".join(str(text).splitlines())))
    for stream in (sys.stdout, sys.stderr):
        line = escape(line, getattr(stream, "encoding", None) or "utf-8")
    return line


def printed(character: str) -> str:
    """The character if it prints, spaces of other scripts among them, or else its escape."""
    if character.isprintable() or (character.isspace() and not character.isascii()):
        return character
    return f"\\x{ord(character):02x}" if character.isascii() else escape(character, "ascii")


def escape(text: str, encoding: str) -> str:
    """The text with escapes for the characters that an encoding lacks."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def run(
    main: Callable[[], int | None],
    *,
    distributed: bool = False,
    needs_console: bool = True,
    needs_reader: bool = True,
) -> int:
    """Call `main` and return its exit code (None: 0), or 2 after one line for an InputError.

    Signals end with 128 + their number, after one line. distributed: torchrun may start several
    processes of this program as one run; other programs are alone, whatever the environment says.
    needs_console: what the program prints is its result, so that it returns 1 where stdout has
    taken no more; others go on without. needs_reader: such a program ends at once when the reader
    of its lines (head, less) has left; others write their files first.
    """
    global distributes
    before, distributes = (distributes, sys.stdout, sys.stderr), distributed
    fill_closed_streams()
    stdout = Stream(sys.stdout, outlived=not (needs_console and needs_reader))
    sys.stdout, sys.stderr = stdout, Stream(sys.stderr)
    try:
        code = exit_code(main)
        stdout.flush()
        if stdout.failure not in (None, os.strerror(errno.EPIPE)) and needs_console:
            print_error(f"error: cannot write to stdout: {stdout.failure}")
        return code or int(needs_console and stdout.failure is not None)
    except BrokenPipeError:
        # The reader of stdout (head, less) has left; Python would complain again when it flushes at
        # exit.
        stdout.discard()
        return 1
    finally:
        distributes, sys.stdout, sys.stderr = before


def exit_code(main: Callable[[], int | None]) -> int:
    """Call `main`; see `run`."""
    try:
        with ending_workers(), knowing_options():
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
        line = one_line(interruption)
        if not said_by_another(line):
            print_error(line)
        return 128 + interruption.number
    except KeyboardInterrupt:
        print_error("interrupted")
        return 128 + signal.SIGINT


def fill_closed_streams() -> None:
    """Open the null device in the place of standard streams that are closed.

    Else the next file to be opened would get their number, and what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # gets the smallest number that is free


class Stream:
    """A standard stream that notes its first failure, and takes anything afterwards.

    stream: None if it was closed when the program started. outlived: not even the end of a pipe's
    reader is an error.
    """

    def __init__(self, stream: Any, *, outlived: bool = True) -> None:
        self.stream = stream
        self.outlived = outlived
        self.failure: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if self.stream is None:
            self.failure = "it is closed"
        elif not self.failure:
            self._attempt(lambda: self.stream.write(text))
        return len(text)

    def flush(self) -> None:
        if self.stream is not None and not self.failure:
            self._attempt(self.stream.flush)

    def isatty(self) -> bool:
        return self.stream is not None and self.stream.isatty()

    def _attempt(self, function: Callable[[], Any]) -> None:
        try:
            function()
        except OSError as error:
            if isinstance(error, BrokenPipeError) and not self.outlived:
                raise
            self.failure = error.strerror or str(error)
            self.discard()

    def discard(self) -> None:
        """Send what is still to be written nowhere: at exit, Python would complain again."""
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


@contextlib.contextmanager
def knowing_options() -> Iterator[None]:
    """Forget at the end the parsers that were made, for `offer`."""
    before = len(PARSERS)
    PARSERS.append(None)
    try:
        yield
    finally:
        del PARSERS[before:]


def offer(text: str) -> str:
    """Return advice on options if the command that runs has those that the text names, else ""."""
    command = next(filter(None, PARSERS), None)
    known = re.findall(r"--\w+", command.format_usage() if command else text)
    return text if {*re.findall(r"--\w+", text)} <= {*known} else ""


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
        if PARSERS:
            PARSERS.append(self)

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
