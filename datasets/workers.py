"""Work on many files in several processes, which never hang and never outlive the command."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

import torch

from console import InputError, Interrupted

from .loader import ignore_signals

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
DEAD = (
    "a worker process was killed, perhaps for want of memory; give the same command again with a "
    "smaller --workers"
)
# Seconds for a process to finish its chunk when the iteration ends.
PATIENCE = 10


def usable_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def in_chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items in their order; the last may be shorter."""
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


def in_processes(work: Callable[[Any], T], chunks: Iterable[Any], *, workers: int) -> Iterator[T]:
    """Yield work(chunk) for every chunk, in the order of completion.

    workers: number of processes; 0: the calling one does the work. A chunk is taken from `chunks`
    when a process is free for it. `work`, chunks and results must pickle. Raises InputError when
    `work` does, and when a process is killed. The processes ignore Ctrl-C and SIGTERM; they finish
    their chunk when the iteration ends early, and end with the calling process if that is killed.
    """
    if not workers:
        yield from map(work, chunks)
        return
    chunks = iter(chunks)
    pool: dict[Connection, BaseProcess] = {}
    try:
        for chunk in islice(chunks, workers):
            connection, process = start(work)
            pool[connection] = process
            send(connection, chunk)
        busy = set(pool)
        while busy:
            for connection in wait(list(busy)):
                yield receive(connection)
                try:
                    send(connection, next(chunks))
                except StopIteration:
                    busy.remove(connection)
    finally:
        stop(pool)


def start(work: Callable[[Any], Any]) -> tuple[Connection, BaseProcess]:
    """Start a process that answers every chunk; returns the connection to it, and the process."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(work, theirs, ours), daemon=True)
    with blocked_signals():
        process.start()
    # A connection ends when all copies of its other end are closed; ours would keep it open.
    theirs.close()
    return ours, process


def serve(work: Callable[[Any], Any], connection: Connection, other_end: Connection) -> None:
    """Answer chunk after chunk, until the other process closes the connection or dies."""
    ignore_signals(0)
    other_end.close()
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            chunk = connection.recv()
            try:
                answer = work(chunk)
            except InputError as error:
                answer = error
            connection.send(answer)


def send(connection: Connection, chunk: Any) -> None:
    """Hand over a chunk. Raises InputError if the process is dead."""
    try:
        connection.send(chunk)
    except ConnectionError as error:
        raise InputError(DEAD) from error


def receive(connection: Connection) -> Any:
    """The next answer. Raises InputError if it is one, and if the process is dead."""
    try:
        answer = connection.recv()
    except (EOFError, OSError) as error:
        raise InputError(DEAD) from error
    if isinstance(answer, InputError):
        raise answer
    return answer


def stop(pool: dict[Connection, BaseProcess]) -> None:
    """End the processes after their chunks, or by force."""
    for connection in pool:
        connection.close()
    for process in pool.values():
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


@contextlib.contextmanager
def blocked_signals() -> Iterator[None]:
    """Delay signals, so that a process started here gets none before it ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Let SIGINT and SIGTERM raise Interrupted with the message."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(message, number)

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
