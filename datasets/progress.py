"""The progress bar of every command, and the lines that stand for it in a log."""

import sys
import time
from collections.abc import Iterable

from tqdm import tqdm

from console import is_first, say


class Progress(tqdm):
    """A bar that only a terminal shows, under torchrun that of the first process.

    total: images, or the batches of `loader`, which iterating over the bar goes through; `done` of
    them are behind it. lines: in a log, print a line for every tenth of the images.
    """

    def __init__(
        self,
        total: int,
        name: str,
        *,
        loader: Iterable | None = None,
        done: int = 0,
        lines: bool = False,
    ) -> None:
        on_terminal = sys.stderr is not None and sys.stderr.isatty()
        super().__init__(
            loader,
            name,
            total,
            leave=False,
            ascii=True,
            unit="images" if loader is None else "it",
            initial=done,
            disable=not (on_terminal and is_first()),
        )
        self.name = name
        self.done = done  # tqdm's own counter stands still where the bar is not shown
        self.lines = lines and not on_terminal
        self.started = time.monotonic()
        self.next_due = self.started + 2

    def add(self, images: int) -> None:
        """Count so many more images."""
        before, self.done = self.done, self.done + images
        self.update(images)
        if self.lines and 10 * before // self.total < 10 * self.done // self.total:
            rate = self.done / max(time.monotonic() - self.started, 1e-9)
            say(f"{self.name}: {self.done} of {self.total} images, {rate:.0f} images/s")

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        with self.external_write_mode(file=sys.stdout):
            say(line)

    def is_due(self) -> bool:
        """Whether the bar is shown and two seconds have passed since it last was due."""
        if self.disable or time.monotonic() < self.next_due:
            return False
        self.next_due = time.monotonic() + 2
        return True
