"""The documents: commands parse, options and defaults are the programs', paths and files exist.

Nothing is trained: commands go through the parser of the program that they name, no further.
"""

import argparse
import fnmatch
import importlib
import itertools
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import run as torchrun

from datasets import DATASETS
from findings.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    str(path.relative_to(ROOT))
    for path in (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("*/*.md")))
    if path.name != "RESULTS.md"
]
SCRIPTS = ("pretrain_on_ImageNet.py", "finetune.py", "cal_transferability.py")
OTHERS = (
    "evaluate.py",
    "-m datasets check",
    "-m datasets resize",
    *(f"-m findings {name}" for name in COMMANDS),
)
# Paths in the text that are not in the repository: the programs' outputs, and the reader's files.
OUTPUTS = "ckpt/* build/* study/* .venv/* shipped/ logs/ ./model.pth ./study.txt".split()
# The same in commands, beside the outputs of other commands.
BROUGHT = ("DIR*", "[A-Z].pth", "build/random_labels")
# Options with an output: of the two training scripts, and of all others.
WRITES = {SCRIPTS[0]: ("-r", "-a"), SCRIPTS[1]: ("-b",)}
WRITES_ELSE = ("--json", "--csv", "--plot", "--out", "-o")
# Words that the reader replaces. An underscore joins them to a name: NAME_transferability.png.
PLACEHOLDERS = re.compile(
    r"(?<![A-Za-z0-9])(?:DIR|FILE|CLASS|NAME|SUBJECT|X)(?![A-Za-z0-9])|[*<>$]"
)
PATH = re.compile(r"[\w.-]+/[\w./*-]*|[\w./*-]+\.(?:py|md|txt|csv|png)")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks_and_prose(text: str) -> tuple[list[str], str]:
    """The fenced blocks, and the text without them."""
    parts = re.split(r"^```.*$", text, flags=re.MULTILINE)
    return parts[1::2], "\n".join(parts[::2])


def spans(text: str) -> list[str]:
    """The texts in backticks outside of blocks, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", blocks_and_prose(text)[1])]


def commands(text: str) -> list[list[str]]:
    """The words of the commands in blocks (continued lines joined) and in the running text.

    Without variables in front, redirections and further commands behind.
    """
    blocks = "\n".join(blocks_and_prose(text)[0]).replace("\\\n", " ")
    lines = [*map(str.strip, blocks.splitlines()), *spans(text)]
    pattern = r"(?:\w+=\S+ )*(?:\.venv/bin/)?((?:python|torchrun|make|pip) [^<>|&;]*)"
    matches = [re.match(pattern, line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in matches if match]


COMMAND_LINES = [(name, words) for name in DOCUMENTS for words in commands(read(name))]


class Parsed(Exception):
    """A program has made its parser, which is the argument; it goes no further."""


def program(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Names that the program of `python WORDS` defines, and its arguments."""
    if words[0] == "-m":
        return vars(importlib.import_module(f"{words[1]}.__main__")), words[2:]
    assert (ROOT / words[0]).is_file(), f"there is no {words[0]}"
    return runpy.run_path(str(ROOT / words[0]), run_name="documented"), words[1:]


def parser_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser of `python WORDS`, that of the sub-command if there is one."""

    def stop(self: argparse.ArgumentParser, *_: object) -> None:
        raise Parsed(self)

    names, rest = program(words)
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", ["documented", *rest])
        with pytest.raises(Parsed) as caught:
            names["main"]()
    (parser,) = caught.value.args
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and rest:
            parser = action.choices[rest[0]]
    return parser


def options_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, argparse.Action]:
    """Option -> action, without --help and what it does not list."""
    actions = parser_of(words, monkeypatch)._actions[1:]
    listed = [action for action in actions if action.help != argparse.SUPPRESS]
    return {option: action for action in listed for option in action.option_strings}


def check_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise unless `python WORDS` names a program that takes these arguments."""
    names, rest = program(words)
    if "parse_args" in names:
        names["parse_args"](rest)
    elif "ArgumentParser" in names or "argparse" in names:
        parser_of(words, monkeypatch).parse_args(rest)
    elif words[:2] != ["-m", "findings"]:
        # A program without options says in its docstring how it is called.
        assert " ".join(["python", *words]) in names["__doc__"]
    elif rest:
        parser_of(words, monkeypatch).parse_args(rest[1:])


def check_pytest(words: list[str], config: pytest.Config) -> None:
    """Raise unless files, tests, markers and options of `pytest WORDS` exist."""
    markers = [mark.partition(":")[0] for mark in config.getini("markers")]
    for option, value in itertools.pairwise(["", *words]):
        if option == "-m":
            assert value in markers
        elif option == "-k":
            assert re.search(rf"def test_\w*{value}", read(words[0])), value
        elif value.startswith("--"):
            config.getoption(value.removeprefix("--"))
        elif value.endswith(".py"):
            assert (ROOT / value).is_file(), value


@pytest.mark.parametrize(("document", "words"), COMMAND_LINES)
def test_command_parses(document, words, monkeypatch, pytestconfig):
    first, *rest = words
    if first == "make":
        for word in rest:
            name, is_variable, _ = word.partition("=")
            pattern = rf"\$\({name}\)" if is_variable else rf"^{name}:"
            assert re.search(pattern, read("Makefile"), re.MULTILINE), word
    elif rest[:2] == ["-m", "pytest"]:
        check_pytest(rest[2:], pytestconfig)
    elif first == "torchrun":
        args = torchrun.get_args_parser().parse_args(rest)
        check_python([args.training_script, *args.training_script_args], monkeypatch)
    elif first == "python" and rest != ["-"]:
        check_python(rest, monkeypatch)


def outputs(words: list[str]) -> list[str]:
    """The files and folders that a command writes, as far as its options name them."""
    options = next((WRITES[word] for word in words if word in WRITES), WRITES_ELSE)
    return [value for option, value in itertools.pairwise(words) if option in options]


def test_files_in_commands_exist_or_are_the_readers_or_written_by_one_other_command():
    names = [name for _, words in COMMAND_LINES for name in outputs(words)]
    checkpoints = [name for name in names if name.endswith(".pth")]
    assert len(checkpoints) == len(set(checkpoints)), "two experiments would meet"
    written = {Path(name).stem for name in names}
    for document, words in COMMAND_LINES:
        for word in words[2:] if words[0] == "python" else ():
            is_file = re.search(r"/|\.(?:pth|csv|json|png)$", word)
            if not is_file or word.startswith("timm/"):
                continue
            known = any(fnmatch.fnmatch(word, pattern) for pattern in BROUGHT)
            known |= any(fnmatch.fnmatch(stem, Path(word).stem) for stem in written)
            assert known or (ROOT / word).exists(), f"{document}: {shlex.join(words)}: {word}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_options_behind_the_name_of_a_script_are_its_own(document, monkeypatch):
    for span in spans(read(document)):
        if re.match(r"[\w/]+\.py -", span):
            script, *words = shlex.split(span)
            options = {word for word in words if word.startswith("-")}
            assert options <= set(options_of([script], monkeypatch)), span


def table(name: str, heading: str) -> list[list[str]]:
    """The rows below a heading, without the header: a list of cells each."""
    section = read(name).split(f"\n{heading}\n")[1].split("\n#")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def options_in(cell: str) -> list[str]:
    """The options named in backticks, without their values."""
    return [span.split()[0] for span in re.findall(r"`([^`]+)`", cell) if span.startswith("-")]


def test_options_and_defaults_of_steps_1_and_2(monkeypatch):
    parsers = [options_of([script], monkeypatch) for script in SCRIPTS[:2]]
    named, compared = [set(), set()], 0
    for first, default, meaning in table("training/README.md", "## Options"):
        for step, options in enumerate(parsers):
            if step == 0 and meaning.startswith("step 2:"):
                continue
            of_step = re.search(rf"`(\S+)` in step {step + 1}", default)
            plain = re.fullmatch(r"`?([^` ]+)`?", default)
            for option in options_in(first):
                assert option in options, f"{SCRIPTS[step]} has no {option}"
                named[step].add(option)
                if of_step or plain:  # else in words, such as "up to 8", or a list
                    stated, actual = (of_step or plain)[1], options[option].default
                    # An option that is off, or does not limit, has no default.
                    meant = {"off": (None, False), "all": (None,)}.get(stated, (stated,))
                    same = actual in meant or str(actual) in meant
                    assert same or float(stated) == actual, f"{option}: {actual}"
                    compared += 1
    assert named == [set(options) for options in parsers]
    assert compared >= 40


def test_options_of_step_3(monkeypatch):
    rows = table("measurement/README.md", "## Options")
    named = {option for first, *_ in rows for option in options_in(first)}
    assert named == set(options_of([SCRIPTS[2]], monkeypatch))


def test_first_published_command_is_the_default(monkeypatch):
    options = options_of([SCRIPTS[0]], monkeypatch)
    words = next(words for _, words in COMMAND_LINES if SCRIPTS[0] in words)[2:]
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option != "--data_dir":
            default = options[option].default
            assert type(default)(value) == default, option


@pytest.mark.parametrize("command", OTHERS)
def test_every_command_and_option_is_in_a_document_and_in_its_help(command, monkeypatch):
    text = "\n".join(map(read, DOCUMENTS))
    assert f"python {command}" in text
    parser = parser_of(command.split(), monkeypatch)
    shown = parser.format_help()
    assert shown.isascii()
    for option, action in options_of(command.split(), monkeypatch).items():
        assert action.help is not argparse.SUPPRESS
        assert re.search(rf"^  (?:-\w, )?{option}\b", shown, re.MULTILINE), option
        assert re.search(rf"(?<![\w-]){option}(?![\w-])", text), option


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_ascii_and_shows_the_published_command(script, monkeypatch):
    shown = parser_of([script], monkeypatch).format_help().replace("\\\n", " ")
    assert shown.isascii()
    published = next(words for _, words in COMMAND_LINES if script in words)
    assert published in [shlex.split(x) for x in shown.splitlines() if x.startswith("    python ")]


def test_data_sets_of_the_table_are_those_of_the_program():
    named = []
    for first, *_ in table("datasets/README.md", "## Names, splits, folders"):
        names = re.findall(r"`([^`]+)`", first)
        # `DomainNet-r`, `-p`, `-c`
        stem = names[0].rpartition("-")[0]
        named += [stem + name if name.startswith("-") else name for name in names]
    assert sorted(named) == sorted(DATASETS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_paths_lead_somewhere(document):
    folders = (ROOT, (ROOT / document).parent)
    for target in re.findall(r"\]\(([^)\s]+)\)", read(document)):
        path = target.partition("#")[0]
        if path and "://" not in path:
            assert folders[1].joinpath(path).exists(), target
    for word in " ".join(spans(read(document))).split():
        # The page on data sets names the reader's folders.
        if PATH.fullmatch(word) and not PLACEHOLDERS.search(word) and "datasets/" not in document:
            exists = any((folder / word).exists() for folder in folders)
            assert exists or any(fnmatch.fnmatch(word, output) for output in OUTPUTS), word
    assert not re.search(r"@[A-Z][A-Z0-9_]*@", read(document)), "a placeholder is left"


def test_tree_of_the_guide_is_the_repository():
    named = set(re.findall(r"\w+(?:/|\.py)", blocks_and_prose(read("CONTRIBUTING.md"))[0][0]))
    folders = {f"{path.parent.name}/" for path in ROOT.glob("[a-z]*/*.py")}
    # The last folders hold checkpoints only.
    assert named - {"ckpt/", "shipped/"} == {path.name for path in ROOT.glob("*.py")} | folders
