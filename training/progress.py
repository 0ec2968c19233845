"""The bar that a terminal shows during an epoch."""

import sys
import time
from collections.abc import Iterable

from tqdm import tqdm

from . import distributed


class ProgressBar(tqdm):
    """tqdm over a loader from batch `done` on, at most `steps` batches; silent off terminals."""

    def __init__(self, loader: Iterable, name: str, done: int, steps: int) -> None:
        hidden = not sys.stderr.isatty() or distributed.rank() > 0
        super().__init__(
            loader,
            desc=name,
            total=min(len(loader), done + steps),
            initial=done,
            disable=hidden,
            leave=False,
            ascii=True,
        )
        self.next_due = time.monotonic() + 2

    def is_due(self) -> bool:
        """Whether the bar is shown and two seconds have passed since it last was due."""
        if self.disable or time.monotonic() < self.next_due:
            return False
        self.next_due = time.monotonic() + 2
        return True
