"""Commands on data sets: look at one, or scale its images once for quicker training.

    python -m datasets check NAME DIR
    python -m datasets resize SRC DST

Each has its own --help.
"""

import argparse
import sys
from pathlib import Path

from console import ArgumentParser, integer, run

from . import DATASETS
from .check import check
from .resize import resize_folder
from .workers import interruptible, usable_cores

CHECK = """Say what a data set folder holds, and what training would refuse in it.

Every image is decoded. Exit code 0, or 2 where training would refuse the data set.
"""
RESIZE = """Scale every image below SRC to SIZE x SIZE pixels, below DST under the same name.

The files are JPEGs of quality 95 whatever their names end in: readers go by content, and lists of
images by name. Other visible files are copied, but no archives. Images that are there already are
not done again, so the same command goes on after an interruption. Exit code 0; 1 if some images are
unreadable, which are named and left out; 2 where SRC or DST cannot be used.
"""


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(__doc__, prog="python -m datasets")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command = commands.add_parser("check", description=CHECK, help="look at a data set")
    command.add_argument("name", metavar="NAME", help=", ".join(DATASETS))
    command.add_argument("dir", metavar="DIR", type=Path, help="folder of the data set")
    add_workers(command)
    command = commands.add_parser("resize", description=RESIZE, help="scale a data set once")
    command.add_argument("src", metavar="SRC", type=Path, help="folder of the images")
    command.add_argument("dst", metavar="DST", type=Path, help="folder for the scaled images")
    command.add_argument("--size", type=integer(1), default=224, help="pixels a side")
    add_workers(command)
    return parser.parse_args(argv)


def add_workers(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        type=integer(0),
        default=usable_cores(),
        help="processes that decode images; 0: the calling one does",
    )


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    if args.command == "resize":
        with interruptible("interrupted; the same command goes on from here"):
            return resize_folder(args.src, args.dst, size=args.size, workers=args.workers)
    with interruptible("interrupted; nothing was changed"):
        check(args.name, args.dir, workers=args.workers)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, needs_console=sys.argv[1:2] != ["resize"]))
