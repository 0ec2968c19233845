"""Compare what `python cal_transferability.py` printed with the README, value by value.

    python cal_transferability.py > FILE && python tests/compare_with_readme.py FILE

Exit code 1, and the lines that differ, unless all are the same.
"""

import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
# Starts of the lines that hold values; the others name files and differ from place to place.
STARTS = (
    "Layer-wise transferability:",
    "Transferability:",
    "Rotation:",
    "Weight decay:",
    "Fine-tuning:",
)
# The words before the block in the README.
MARKER = "`python cal_transferability.py` prints"


def values(text: str) -> list[str]:
    """The lines of `text` that hold values."""
    return [line for line in text.splitlines() if line.startswith(STARTS)]


def expected() -> list[str]:
    """The lines with values in the README's block."""
    text = README.read_text(encoding="utf-8")
    return values(text.split(MARKER)[1].split("```")[1])


def main(printed: str) -> int:
    """Print whether the values are the README's; returns the exit code."""
    actual, wanted = values(printed), expected()
    if actual == wanted:
        print(f"All {len(wanted)} lines of values are those of the README.")
        return 0
    print("NOT the values of the README:", file=sys.stderr)
    for line in wanted:
        print(f"  README   {line}", file=sys.stderr)
    for line in actual:
        print(f"  printed  {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).read_text(encoding="utf-8")))
