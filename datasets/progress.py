"""How far a command is: a bar on a terminal, lines in a file."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

from console import say


class Progress:
    """Counts images: a bar where stderr is a terminal, else a line for every tenth of `total`.

    lines: whether to print those lines.
    """

    def __init__(self, total: int, name: str, *, lines: bool) -> None:
        self.total = total
        self.name = name
        self.done = 0
        hidden = not sys.stderr.isatty()
        self.lines = lines and hidden
        self.started = time.monotonic()
        self.bar = tqdm(
            total=total, desc=name, unit="images", disable=hidden, leave=False, ascii=True
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.bar.close()

    def add(self, images: int) -> None:
        """Count so many more."""
        before, self.done = self.done, self.done + images
        self.bar.update(images)
        if self.lines and 10 * before // self.total < 10 * self.done // self.total:
            rate = self.done / max(time.monotonic() - self.started, 1e-9)
            say(f"{self.name}: {self.done} of {self.total} images, {rate:.0f} images/s")
