"""Work on many files in several processes, which never hang and never outlive the command."""

import contextlib
import errno
import multiprocessing
import os
import signal
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle, islice
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

import torch

from console import STOPPING, InputError, Interrupted, handling_signals

try:
    import resource  # now: when there are too many open files, nothing can be imported
except ImportError:  # not on Windows
    resource = None

T = TypeVar("T")
# Seconds without a sign of life from any process until the work is given up.
PATIENCE = 60
# Seconds between two signs of life, and between two looks at a signal that has come meanwhile.
BEAT = 0.5
# Seconds for a process to finish its chunk when the iteration ends.
LAST_CHUNK = 10
# Tasks that a process has before it: one under way, one waiting.
AHEAD = 2


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


def nothing() -> None:
    """The hook of a process that nobody waits for."""


hook: Callable[[], None] = nothing


def alive() -> None:
    """Called after every image that is read, and again and again while others are awaited.

    A worker tells the main process that it still moves; the main process looks for a signal.
    """
    hook()


@contextlib.contextmanager
def while_waiting(function: Callable[[], None]) -> Iterator[None]:
    """Let `alive` call the function, which may raise: that ends the waiting."""
    global hook
    before, hook = hook, function
    try:
        yield
    finally:
        hook = before


def in_processes(
    work: Callable[[Any], T], chunks: Iterable[Any], *, workers: int, patience: float = PATIENCE
) -> Iterator[T]:
    """Yield work(chunk) for every chunk, in the order of completion.

    workers: number of processes; 0: the calling one does the work. A chunk is taken from `chunks`
    when a process is free for it. `work`, chunks and results must pickle. Raises InputError when
    `work` does, and as Pool.answers does. The processes finish their chunk when the iteration ends
    early, and end with the calling process if that is killed.
    """
    if not workers:
        yield from map(work, chunks)
        return
    chunks = iter(chunks)
    pool = Pool(work, option="--workers", patience=patience)
    try:
        for chunk in islice(chunks, workers):
            pool.send(pool.start(), chunk)
        while pool.open_tasks.total():
            for connection, answer in pool.answers():
                if isinstance(answer, InputError):
                    raise answer
                yield answer
                for chunk in islice(chunks, 1):
                    pool.send(connection, chunk)
    finally:
        pool.stop()


class Pool:
    """Processes that answer tasks: the answer is work(task), or the InputError that it raises.

    Tasks and answers go through pipes: /dev/shm, of 64 MB in most containers, and sockets with a
    name in TMPDIR are not needed. option: of the command line, gives the number of processes.
    patience: seconds without a sign of life from any process that has a task.
    """

    def __init__(
        self, work: Callable[[Any], Any], *, option: str, patience: float = PATIENCE
    ) -> None:
        self.work = work
        self.option = option
        self.patience = patience
        self.processes: dict[Connection, BaseProcess] = {}
        self.open_tasks: Counter[Connection] = Counter()  # tasks without an answer
        weakref.finalize(self, kill, self.processes)

    def start(self) -> Connection:
        """Start a process; returns the connection to it. Raises InputError where there is none."""
        try:
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(
                target=serve, args=(self.work, theirs, ours), daemon=True
            )
            # It must get no signal before it ignores them.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            try:
                process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        except OSError as error:
            raise InputError(
                f"cannot start {len(self.processes) + 1} processes that load images: "
                f"{reason(error)}; give a smaller {self.option}"
            ) from error
        # A connection ends when all copies of its other end are closed; ours would keep it open.
        theirs.close()
        self.processes[ours] = process
        return ours

    def send(self, connection: Connection, task: Any) -> None:
        """Hand over a task. Raises InputError if the process is dead."""
        try:
            connection.send(task)
        except ConnectionError as error:
            raise InputError(self.dead) from error
        self.open_tasks[connection] += 1

    def answers(self) -> list[tuple[Connection, Any]]:
        """The next answers, at least one, each with the connection that it came through.

        Raises InputError if a process is dead, and if none has finished an image for `patience`.
        """
        waited, answers = 0.0, []
        while not answers:
            alive()
            ready = wait(list(self.processes), BEAT)
            # Turns are counted, not seconds: a command may be stopped and continued hours later.
            waited = 0 if ready else waited + BEAT
            if waited >= self.patience:
                kill(self.processes)
                raise InputError(
                    f"no image was read for {self.patience:g} seconds: the disk or a process that "
                    f"loads images hangs; start again, perhaps with {self.option} 0"
                )
            for connection in ready:
                try:
                    answer = connection.recv()
                except (EOFError, OSError) as error:
                    raise InputError(self.dead) from error
                if answer is not None:  # else a sign of life
                    self.open_tasks[connection] -= 1
                    answers.append((connection, answer))
        return answers

    def in_order(self, tasks: Iterable[Any], take: Callable[[Any], T]) -> Iterator[T]:
        """Yield take(answer) for every task in turn; the processes work two tasks ahead each.

        Task i goes to process i modulo their number, which gets its next one after `take`. Answers
        to the tasks of an earlier call that was given up are dropped. Raises as `answers` does.
        """
        turns = zip(cycle(self.processes), tasks)
        dropped = self.open_tasks.copy()
        answers: dict[Connection, deque] = {connection: deque() for connection in self.processes}
        awaited: deque[Connection] = deque()

        def send_next(number: int) -> None:
            for connection, task in islice(turns, number):
                self.send(connection, task)
                awaited.append(connection)

        send_next(AHEAD * len(self.processes))
        while awaited:
            connection = awaited.popleft()
            while not answers[connection]:
                for other, answer in self.answers():
                    if dropped[other]:
                        dropped[other] -= 1
                    else:
                        answers[other].append(answer)
            taken = take(answers[connection].popleft())
            send_next(1)
            yield taken

    def stop(self) -> None:
        """End the processes after their tasks, or by force."""
        for connection in self.processes:
            connection.close()
        for process in self.processes.values():
            process.join(LAST_CHUNK)
        kill(self.processes)

    @property
    def dead(self) -> str:
        """The error of a process that is no longer there."""
        return (
            "a process that loads images was killed, perhaps for want of memory; give the same "
            f"command again with a smaller {self.option}"
        )


def kill(processes: dict[Connection, BaseProcess]) -> None:
    """End processes at once."""
    for connection, process in processes.items():
        connection.close()
        process.kill()
    for process in processes.values():
        process.join(LAST_CHUNK)
    processes.clear()


def reason(error: OSError) -> str:
    """Why the system refuses a process or a file."""
    if error.errno != errno.EMFILE or resource is None:
        return str(error.strerror or error)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"{error.strerror} (a limit of {limit}, which ulimit -n raises)"


def serve(work: Callable[[Any], Any], connection: Connection, other_end: Connection) -> None:
    """Answer task after task, until the other process closes the connection or dies."""
    ignore_signals()
    other_end.close()
    torch.set_num_threads(1)
    parent, last = os.getppid(), time.monotonic()

    def beat() -> None:
        nonlocal last
        if time.monotonic() - last >= BEAT:
            last = time.monotonic()
            connection.send(None)

    with while_waiting(beat), contextlib.suppress(EOFError, ConnectionError):
        while True:
            # Processes that were started later hold copies of the other end.
            while not connection.poll(LAST_CHUNK):
                if os.getppid() != parent:
                    return
            task = connection.recv()
            try:
                answer = work(task)
            except InputError as error:
                answer = error
            except MemoryError:
                answer = InputError("a process that loads images has not enough memory")
            connection.send(answer)


def ignore_signals() -> None:
    """Leave signals to the main process, although they may reach the whole group.

    The main process saves its state first; the workers end with it.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Let the signals that end a command raise Interrupted with the message."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(message, number)

    with handling_signals(interrupt):
        yield
