"""The documents: commands parse, options and defaults are the programs', paths exist.

Nothing is trained: commands go through the parser of the program that they name, no further.
"""

import argparse
import contextlib
import fnmatch
import importlib
import io
import itertools
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from torch.distributed import run as torchrun

from console import InputError
from datasets import DATASETS
from findings.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "ckpt/README.md",
        "datasets/README.md",
        "findings/README.md",
    )
    if (ROOT / name).exists()
]
SCRIPTS = ("pretrain_on_ImageNet.py", "finetune.py", "cal_transferability.py")
OTHERS = (
    "evaluate.py",
    "-m datasets check",
    "-m datasets resize",
    *(f"-m findings {name}" for name in COMMANDS),
)
# Documented paths that are not in the repository: what the programs write, and the user's files.
OUTPUTS = (
    *("ckpt/*", "build/*", ".venv/*", "shipped/", "logs/", "./model.pth", "study/*"),
    *("results.csv", "X.csv", "X_layers.csv"),
)
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
    """What stands in backticks outside of blocks, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", blocks_and_prose(text)[1])]


def commands(text: str) -> list[str]:
    """The commands of the blocks, with continued lines joined, and those in the running text."""
    lines = [
        line.strip()
        for block in blocks_and_prose(text)[0]
        for line in block.replace("\\\n", " ").splitlines()
    ]
    return [
        each
        for each in (*lines, *spans(text))
        if re.match(r"(?:\w+=\S+ )*(?:\.venv/bin/)?(?:python|torchrun|make|pytest) ", each)
    ]


def abridged(text: str) -> list[str]:
    """Names of scripts followed by options, as in `finetune.py -r`."""
    return [each for each in spans(text) if re.match(r"[\w/]+\.py -", each)]


COMMAND_LINES = [(name, line) for name in DOCUMENTS for line in commands(read(name))]
ABRIDGED = [(name, line) for name in DOCUMENTS for line in abridged(read(name))]


def module_of(words: list[str]) -> tuple[ModuleType, list[str]]:
    """The module that `python WORDS` runs, and the arguments that its parse_args or main gets."""
    if words[0] == "-m":
        name, rest = words[1], words[2:]
        if name == "findings" and rest and rest[0] != "NAME":
            assert rest[0] in COMMANDS, f"findings has no command {rest[0]}"
            return importlib.import_module(f"findings.{rest[0]}"), rest[1:]
        return importlib.import_module(f"{name}.__main__"), rest
    path = Path(words[0])
    assert (ROOT / path).is_file(), f"there is no {path}"
    if path.parent.name in ("", "figures"):
        return importlib.import_module(".".join(path.with_suffix("").parts)), words[1:]
    spec = importlib.util.spec_from_file_location(f"documented_{path.stem}", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, words[1:]


class Parsed(Exception):
    """A program has made its parser; it goes no further."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def parser_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser of `python WORDS`, that of the sub-command where there is one."""

    def stop(self: argparse.ArgumentParser, *_: object) -> None:
        raise Parsed(self)

    module, rest = module_of(words)
    parse: Callable = getattr(module, "parse_args", module.main)
    # The benchmarks' main takes no arguments.
    arguments = [[]] if parse.__code__.co_argcount else []
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(Parsed) as caught:
            parse(*arguments)
    parser = caught.value.parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction) and rest:
            parser = action.choices[rest[0]]
    return parser


def options_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Option -> action, without --help."""
    return {
        option: action
        for action in parser._actions
        for option in action.option_strings
        if option not in ("-h", "--help")
    }


def check_python(words: list[str], monkeypatch: pytest.MonkeyPatch, config: pytest.Config) -> None:
    """Raise unless `python WORDS` names a program that takes these arguments."""
    if words[:2] == ["-m", "pytest"]:
        return check_pytest(words[2:], config)
    module, rest = module_of(words)
    if "ArgumentParser" not in Path(module.__file__).read_text(encoding="utf-8"):
        if module.__name__ == "findings.__main__":
            return None
        # A program without options says in its docstring how it is called.
        assert " ".join(["python", *words]) in module.__doc__
        return None
    if hasattr(module, "parse_args"):
        module.parse_args(rest)
    else:
        parser_of(words, monkeypatch).parse_args(rest)
    return None


def check_pytest(words: list[str], config: pytest.Config) -> None:
    """Raise unless files, tests, markers and options of `pytest WORDS` exist."""
    after = dict(itertools.pairwise(words))
    values = {after.get(option) for option in ("-m", "-k", "--data_dir")}
    if "-m" in after:
        marks = [each.partition(":")[0] for each in config.getini("markers")]
        assert set(re.findall(r"\w+", after["-m"])) - {"not", "and", "or"} <= set(marks)
    if "-k" in after:
        files = [ROOT / word for word in words if word.endswith(".py")]
        texts = [file.read_text(encoding="utf-8") for file in files]
        assert any(re.search(rf"def test_\w*{after['-k']}", text) for text in texts)
    for word in words:
        if word.startswith("--"):
            config.getoption(word.partition("=")[0].lstrip("-").replace("-", "_"))
        elif word.startswith("-"):
            assert word in ("-m", "-k", "-q", "-x", "-v"), word
        elif word not in values:
            file, *names = word.split("::")
            assert (ROOT / file).exists(), file
            for name in names:
                assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


def check_make(words: list[str]) -> None:
    """Raise unless targets and variables of `make WORDS` are those of the Makefile."""
    makefile = read("Makefile")
    for word in words:
        variable = re.match(r"(\w+)=", word)
        if variable:
            assert re.search(rf"\$\({variable[1]}\)|^{variable[1]} \?=", makefile, re.MULTILINE)
        else:
            assert re.search(rf"^{re.escape(word)}:", makefile, re.MULTILINE), f"no target {word}"


def check_torchrun(
    words: list[str], monkeypatch: pytest.MonkeyPatch, config: pytest.Config
) -> None:
    """Raise unless torchrun takes its part of the command, and the script the rest."""
    args = torchrun.get_args_parser().parse_args(words)
    check_python([args.training_script, *args.training_script_args], monkeypatch, config)


@pytest.mark.parametrize(("document", "line"), COMMAND_LINES)
def test_command_parses(document, line, monkeypatch, pytestconfig):
    words = shlex.split(line, comments=True)
    while "=" in words[0]:
        words.pop(0)
    # What is behind a redirection or another command is not this program's.
    for end in (">", "|", "&&", "||", ";"):
        words = words[: words.index(end)] if end in words else words
    program, rest = words[0].removeprefix(".venv/bin/"), words[1:]
    try:
        if program == "make":
            check_make(rest)
        elif program == "pytest":
            check_pytest(rest, pytestconfig)
        elif program == "torchrun":
            check_torchrun(rest, monkeypatch, pytestconfig)
        else:
            check_python(rest, monkeypatch, pytestconfig)
    except InputError as error:
        pytest.fail(f"{document}: {line}: {error}")


@pytest.mark.parametrize(("document", "line"), ABRIDGED)
def test_options_behind_the_name_of_a_script_are_its_own(document, line, monkeypatch):
    script, *words = shlex.split(line)
    known = options_of(parser_of([script], monkeypatch))
    assert {word for word in words if word.startswith("-")} <= set(known), document


def table(text: str, heading: str) -> list[list[str]]:
    """The rows below a heading, without the header: a list of cells each."""
    section = text.split(f"\n{heading}\n")[1].split("\n#")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def options_in(cell: str) -> list[str]:
    """The options named in backticks, without their values."""
    return [span.split()[0] for span in re.findall(r"`([^`]+)`", cell) if span.startswith("-")]


@pytest.fixture
def parsers(monkeypatch):
    """Script -> option -> action."""
    return {name: options_of(parser_of([name], monkeypatch)) for name in SCRIPTS}


def test_options_and_defaults_of_steps_1_and_2(parsers):
    compared = 0
    for first, default, meaning in table(read("README.md"), "### Options of steps 1 and 2"):
        scripts = SCRIPTS[1:2] if meaning.startswith("step 2:") else SCRIPTS[:2]
        for option in options_in(first):
            for step, script in enumerate(SCRIPTS[:2], start=1):
                if script not in scripts:
                    continue
                assert option in parsers[script], f"{script} has no {option}"
                of_step = re.search(rf"`(\w+)` in step {step}", default)
                plain = re.fullmatch(r"`?(\w+)`?", default)
                if not (of_step or plain):
                    continue  # in words, such as "up to 8"
                stated = (of_step or plain)[1]
                found = parsers[script][option].default
                # An option that is off, or does not limit, has no default.
                meant = {"off": (None, False), "all": (None,)}.get(stated, (stated,))
                assert found in meant or str(found) in meant, f"{script} {option}: {found}"
                compared += 1
    assert compared >= 30


def test_options_of_step_3(parsers):
    rows = table(read("README.md"), "### Options of step 3")
    named = {option for first, *_ in rows for option in options_in(first)}
    assert named <= set(parsers[SCRIPTS[2]])
    assert len(named) >= 8


def test_first_published_command_is_the_default(parsers):
    block = next(each for each in blocks_and_prose(read("README.md"))[0] if SCRIPTS[0] in each)
    words = shlex.split(block.splitlines()[1])[2:]
    for option, value in zip(words[::2], words[1::2], strict=True):
        if option != "--data_dir":
            default = parsers[SCRIPTS[0]][option].default
            assert type(default)(value) == default, option


@pytest.mark.parametrize("command", [*SCRIPTS, *OTHERS])
def test_every_option_is_in_the_readme(command, parsers, monkeypatch):
    options = parsers.get(command) or options_of(parser_of(command.split(), monkeypatch))
    text = read("README.md")
    missing = [o for o in options if not re.search(rf"(?<![\w-]){o}(?![\w-])", text)]
    assert not missing


@pytest.mark.parametrize("command", OTHERS)
def test_every_option_of_another_command_is_in_its_help(command, monkeypatch):
    parser = parser_of(command.split(), monkeypatch)
    shown = parser.format_help()
    assert shown.isascii()
    for option, action in options_of(parser).items():
        assert action.help is not argparse.SUPPRESS
        assert re.search(rf"^  (?:-\w, )?{option}\b", shown, re.MULTILINE), option


def test_every_command_on_data_sets_and_findings_is_in_the_readme():
    text = read("README.md")
    for command in OTHERS[1:]:
        assert f"python {command}" in text


def test_data_sets_of_the_readme_are_those_of_the_table():
    named = []
    for first, *_ in table(read("datasets/README.md"), "## Names, splits, folders"):
        names = re.findall(r"`([^`]+)`", first)
        # `DomainNet-r`, `-p`, `-c`
        stem = names[0].rpartition("-")[0]
        named += [stem + name if name.startswith("-") else name for name in names]
    assert sorted(named) == sorted(DATASETS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(document)):
        path = target.partition("#")[0]
        if path and "://" not in path and not path.startswith("mailto:"):
            assert (ROOT / document).parent.joinpath(path).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_backticks_exist(document):
    # These sections are about the user's folders.
    about_data = r"\n#+ (Data sets|Names, splits, folders)\n.*?(?=\n##|\Z)"
    text = re.sub(about_data, "", read(document), flags=re.DOTALL)
    places = (ROOT, (ROOT / document).parent)
    missing = [
        word
        for span in spans(text)
        for word in span.split()
        if PATH.fullmatch(word)
        and not PLACEHOLDERS.search(word)
        and not any(fnmatch.fnmatch(word, output) for output in OUTPUTS)
        and not any((place / word).exists() for place in places)
    ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_placeholder_is_left(document):
    assert re.findall(r"@[A-Z][A-Z0-9_]*@", read(document)) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_ascii_and_shows_the_published_command(script):
    module = importlib.import_module(script.removesuffix(".py"))
    text = io.StringIO()
    with contextlib.redirect_stdout(text), pytest.raises(SystemExit):
        module.parse_args(["--help"])
    shown = text.getvalue()
    assert shown.isascii()
    published = next(line for line in commands(read("README.md")) if f"python {script} " in line)
    assert shlex.split(published) in [
        shlex.split(line)
        for line in shown.replace("\\\n", " ").splitlines()
        if line.strip().startswith("python ")
    ]
