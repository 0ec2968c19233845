"""Commands on the findings of the paper (sections 3 and 4).

    python -m findings published
    python -m findings COMMAND --help

Without a command it lists them.
"""

import importlib
import sys

from console import InputError, run, say

from . import extra_packages

# Command -> what it does. Each is a module with `main(argv)`, imported when it is wanted.
COMMANDS = {
    "published": "check the published numbers and fit them again",
    "factors": "domain gap G, intraclass variance D and classes K of a data set",
    "variants": "write changed copies of a data set, and measure their factors",
    "regression": "regress log T on chosen factors",
    "figures": "draw the figures from a table of results",
    "summary": "data, steps and depth, from the table of a study",
    "study": "run fine-tuning and measurement for every row of a plan",
    "shuffle": "write theta_A with its weights permuted, a start without features",
    "table_plan": "write the plan of the remade table, and its folders of links",
    "table": "the hypotheses of the remade table, and what it describes",
    "reset": "set layers of theta_FB back one by one, and evaluate the network",
}


def main(argv: list[str] | None = None) -> int | None:
    words = sys.argv[1:] if argv is None else argv
    if words[:1] in ([], ["-h"], ["--help"]):
        say("usage: python -m findings COMMAND ...; COMMAND --help tells its options")
        for name, purpose in COMMANDS.items():
            say(f"  {name:12}{purpose}")
        return None if words else 2
    if words[0] not in COMMANDS:
        raise InputError(f"unknown command '{words[0]}'; one of {', '.join(COMMANDS)}")
    with extra_packages():
        command = importlib.import_module(f"findings.{words[0]}")
    return command.main(words[1:])


if __name__ == "__main__":
    # A study trains for hours, and its rows are in its table.
    trains = sys.argv[1:2] == ["study"] and "--print_commands" not in sys.argv
    sys.exit(run(main, needs_console=not trains, needs_reader=False))
