"""The files that step 3 writes: none may replace what it has read."""

from collections.abc import Iterable
from pathlib import Path

from models.checkpoint import beside
from safe_io import InputError, check_output


def check_outputs(given: Iterable[Path | None], inputs: list[Path]) -> list[Path]:
    """Return the outputs that are `given` (None: not wanted).

    Raises InputError where one cannot be written, or would replace another one or a file of
    `inputs`. The records X.json and X.csv of the training runs beside the inputs are no less
    precious.
    """
    outputs = [check_output(path) for path in given if path]
    taken: dict[Path, str] = {}
    for path in inputs:
        # A record lies beside a link or beside what it points at.
        for file in (path, path.resolve()):
            taken |= dict.fromkeys(places(file), "it is given as an input")
            for suffix in (".json", ".csv"):
                reason = f"it belongs to the training run of {path}"
                taken = dict.fromkeys(places(beside(file, suffix)), reason) | taken
    for output in outputs:
        for place in places(output):
            if place in taken:
                raise InputError(f"cannot write {output}: {taken[place]}; give another file name")
        taken |= dict.fromkeys(places(output), "it is another output")
    return outputs


def places(path: Path) -> set[Path]:
    """Where a file lies by its name, and where a link of that name points."""
    return {path.parent.resolve() / path.name, path.resolve()}
