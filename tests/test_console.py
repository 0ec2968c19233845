"""One-line errors, exit codes and types of arguments."""

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import ROOT

import console
from console import (
    ArgumentParser,
    InputError,
    SaidByFirst,
    handling_signals,
    integer,
    number,
    offer,
    one_line,
    run,
    say,
    warn,
)


def raiser(error):
    def main():
        raise error

    return main


# Exit codes and lines


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1)])
def test_exit_code_is_what_main_returns(returned, code):
    assert run(lambda: returned) == code


def test_input_error_is_one_line_and_exit_code_2(capsys):
    assert run(raiser(InputError("no such\nfile: \u00e4\x1b[2J"))) == 2
    assert capsys.readouterr() == ("", "error: no such file: \u00e4\\x1b[2J\n")


def test_interrupt_is_one_line_and_exit_code_130(capsys):
    assert run(raiser(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_mistake_of_the_program_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run(raiser(ZeroDivisionError()))


def test_reader_of_stdout_may_leave():
    code = "import console; exit(console.run(lambda: [console.say('x') for _ in range(99999)]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 1


# A console that is gone

SCRIPT = """
import sys
import console

def main():
    console.say("first")
    console.warn("odd")
    print("second")
    with open(sys.argv[1], "w") as file:
        file.write("done")
    if sys.argv[3:]:
        raise console.InputError("bad")

sys.exit(console.run(main, needs_console=sys.argv[2] == "needs"))
"""


@pytest.mark.parametrize(
    ("redirection", "code", "out", "err"),
    [
        (">/dev/full", 1, None, "warning: odd\nerror: cannot write to stdout: No space left *\n"),
        (">&-", 1, None, "warning: odd\nerror: cannot write to stdout: it is closed\n"),
        ("2>/dev/full", 0, "first\nwarning: odd\nsecond\n", None),
        ("2>&-", 0, "first\nwarning: odd\nsecond\n", None),
        (">/dev/full 2>&1", 1, None, None),
        (">&- 2>&- <&-", 1, None, None),
    ],
)
@pytest.mark.parametrize("program", ["needs", "outlives"])
@pytest.mark.parametrize("bad", ["", "bad"])
def test_console_that_is_gone(redirection, code, out, err, program, bad, tmp_path):
    """The work is done, and what a stream is left for is said there; nothing else is printed."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "out"), program, *bad.split()]
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *words],
        **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 60},
    )
    assert (tmp_path / "out").read_text() == "done"
    if program == "outlives":
        code, err = 0, err and "warning: odd\n"
    if bad:
        code = 2
        out, err = (out and out + "error: bad\n", err and err.replace("odd\n", "odd\nerror: bad\n"))
    assert done.returncode == code
    assert done.stdout == (out or "")
    assert re.fullmatch((err or "").replace("*", ".*"), done.stderr), done.stderr


def test_program_that_outlives_the_reader_of_its_lines(tmp_path):
    words = [sys.executable, "-c", SCRIPT, str(tmp_path / "out"), "outlives"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"warning: odd\n"
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert (tmp_path / "out").exists()


def test_step_3_writes_its_files_when_the_reader_of_its_lines_has_left(tmp_path):
    words = [sys.executable, "cal_transferability.py", "--no_plot", "--json", tmp_path / "t.json"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(words, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 1
    assert "error" not in done.stderr
    assert len(json.loads((tmp_path / "t.json").read_text())["results"]) == 2


# Signals


def test_signals_that_nohup_has_ignored_stay_so():
    number = signal.SIGHUP
    before = signal.signal(number, signal.SIG_IGN)
    numbers = []
    try:
        with handling_signals(lambda number, frame: numbers.append(number)):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert numbers == [signal.SIGUSR1, signal.SIGINT]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a  b\nc\r\n", "a  b c"),
        ("\u03b8_r", "\u03b8_r"),
        ("K\u00e4fer/\u6570\u636e\u3000\U0001f431", "K\u00e4fer/\u6570\u636e\u3000\U0001f431"),
        ("a\u0308\u2028b", "a\u0308 b"),
        ("\u202egnp.exe\u200b", "\\u202egnp.exe\\u200b"),  # would change what is seen
        ("\x1b[2J\t\x07", "\\x1b[2J\\x09\\x07"),
        (os.fsdecode(b"\xff.pth"), "\\udcff.pth"),
        (Path("x"), "x"),
    ],
)
def test_any_text_becomes_one_line(text, line, capsys):
    assert one_line(text) == line
    say(text)
    warn(text)
    assert capsys.readouterr() == (f"{line}\n", f"warning: {line}\n")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r"K\xe4fer \u6570 \U0001f431"),
        ("latin-1", "K\u00e4fer \\u6570 \\U0001f431"),
        ("cp1252", "K\u00e4fer \\u6570 \\U0001f431"),
        ("gb2312", "K\\xe4fer \u6570 \\U0001f431"),
        ("utf-8", "K\u00e4fer \u6570 \U0001f431"),
        ("utf-16", "K\u00e4fer \u6570 \U0001f431"),
    ],
)
@pytest.mark.parametrize("which", ["stdout", "stderr"])
def test_line_holds_what_the_console_can_show(encoding, shown, which, monkeypatch):
    console = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, which, console)
    text = "K\u00e4fer \u6570 \U0001f431"
    say(text) if which == "stdout" else warn(text)
    line = shown if which == "stdout" else f"warning: {shown}"
    assert console.buffer.getvalue().decode(encoding) == f"{line}\n"


# Several processes

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.fixture
def become(monkeypatch, tmp_path):
    """Makes this process the one of the given rank that torchrun starts on this machine."""
    monkeypatch.setattr(console, "distributes", True)  # as `run` does

    def set_rank(rank, *, error_file=None):
        file = tmp_path / "attempt_0" / str(rank) / "error.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        for name, value in zip(RANKS, (rank, 2, rank), strict=True):
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv(
            "TORCHELASTIC_ERROR_FILE", str(file if error_file is None else error_file)
        )

    return set_rank


def test_only_the_first_process_speaks(become, capsys):
    for rank in (0, 1):
        become(rank)
        say(f"said by {rank}")
        warn(f"warned by {rank}")
    assert capsys.readouterr() == ("said by 0\n", "warning: warned by 0\n")


@pytest.mark.parametrize("stray", RANKS)
def test_one_stray_variable_silences_nobody(stray, monkeypatch, capsys):
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(stray, "1")
    say("said")
    warn("warned")
    assert capsys.readouterr() == ("said\n", "warning: warned\n")


def test_program_that_is_never_distributed_speaks_whatever_the_environment_says(become, capsys):
    def main():
        say("said")
        warn("warned")

    become(1)
    for rank in range(2):
        become(1)
        assert run(main) == 0
        assert run(raiser(InputError("no such folder"))) == 2
        out, err = capsys.readouterr()
        assert (out, err) == ("said\n", "warning: warned\nerror: no such folder\n"), rank


def test_error_that_all_processes_have_is_printed_once(become, capsys):
    for rank in (1, 0):
        become(rank)
        assert run(raiser(InputError("no such folder")), distributed=True) == 2
    assert capsys.readouterr().err == "error: no such folder\n"


def test_error_of_one_process_alone_is_printed_whichever_it_is(become, capsys):
    for rank in (0, 1):
        become(rank)
        run(raiser(InputError(f"only {rank} has it")), distributed=True)
    assert capsys.readouterr().err == "error: only 0 has it\nerror: only 1 has it\n"
    become(1)
    run(raiser(SaidByFirst("the first one prints it")))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error_file", ["", os.devnull, "/none/0/error.json"])
def test_error_is_printed_by_all_where_they_share_no_folder(error_file, become, capsys):
    for rank in (0, 1):
        become(rank, error_file=error_file)
        run(raiser(InputError("no such folder")), distributed=True)
    assert capsys.readouterr().err == "error: no such folder\n" * 2


def test_error_that_all_processes_of_torchrun_have_is_printed_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from console import InputError, run\n"
        "def main():\n"
        "    raise InputError('no such folder')\n"
        "sys.exit(run(main, distributed=True))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", str(script)]
    # torchrun leaves its folder behind.
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode != 0
    assert ran.stderr.count("error: no such folder\n") == 1, ran.stderr


# Arguments


@pytest.mark.parametrize("text", ["1", "7", "+7", " 7 "])
def test_integer_accepts(text):
    assert integer(1)(text) == int(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e3", "nan", "", "x"])
def test_integer_refuses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="whole number of at least 1, not"):
        integer(1)(text)


@pytest.mark.parametrize("text", [str(2**63), "9" * 20])
def test_integer_refuses_what_torch_cannot_hold(text):
    assert integer(0)(str(2**63 - 1)) == 2**63 - 1
    with pytest.raises(
        argparse.ArgumentTypeError, match=f"at most 9223372036854775807, not '{text}"
    ):
        integer(0)(text)


def test_seed_of_a_script_is_one_that_torch_takes(tmp_path, capsys):
    import pretrain_on_ImageNet

    def step_1(seed):
        argv = ["--max_epoch", "0", "--arch", "resnet50_w8", "-r", str(tmp_path / "r.pth")]
        return run(lambda: pretrain_on_ImageNet.main([*argv, "--seed", str(seed)]))

    assert step_1(2**63 - 1) == 0
    capsys.readouterr()
    assert step_1(2**63) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch("error: argument --seed: must be a whole number of at most .*\n", err)


@pytest.mark.parametrize("text", ["0", "0.1", "1e-4", "5"])
def test_number_accepts(text):
    assert number(0)(text) == float(text)


@pytest.mark.parametrize("text", ["-0.1", "nan", "inf", "-inf", "1e999", "", "x"])
def test_number_refuses(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be a number of at least 0, not"):
        number(0)(text)


def test_number_above_refuses_the_bound_itself():
    assert number(0, above=True)("1e-9") == 1e-9
    with pytest.raises(argparse.ArgumentTypeError, match="must be a number above 0, not '0'"):
        number(0, above=True)("0")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--epochs", "0"], "argument --epochs: must be a whole number of at least 1, not '0'"),
        (["--epoch", "3"], "unrecognized arguments: --epoch 3"),  # no guessing of names
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_parser_complains_in_one_line(argv, message):
    parser = ArgumentParser("Does nothing.")
    parser.add_argument("--epochs", type=integer(1), default=100)
    with pytest.raises(InputError, match=f"{re.escape(message)} .see .* --help"):
        parser.parse_args(argv)


def test_help_shows_defaults_and_the_description_as_written(capsys):
    parser = ArgumentParser("Step 1.\n\n    indented as it is")
    parser.add_argument("--epochs", type=integer(1), default=100, help="how many")
    parser.add_argument("--seed", type=integer(0), default=0, help="which")
    parser.add_argument("--out", help="where")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    with pytest.raises(SystemExit) as exit_:
        parser.parse_args(["--help"])
    out = capsys.readouterr().out
    assert exit_.value.code == 0
    assert "how many (default: 100)" in out
    assert "which (default: 0)" in out
    # That an option is off unless it is given need not be said.
    assert re.search(r"where\n.*print nothing\n", out)
    assert "\n    indented as it is\n" in out


def test_advice_is_that_of_the_users_own_command(capsys):
    """A study runs the scripts, whose options it does not have."""

    def inner():
        ArgumentParser("A script.").add_argument("--overwrite", action="store_true")
        raise InputError(f"there is x.pth{offer(', add --overwrite')}{offer(', or --out')}")

    def outer():
        ArgumentParser("A study.").add_argument("--out")
        return run(inner)

    assert run(inner) == run(outer) == 2
    assert capsys.readouterr().err == (
        "error: there is x.pth, add --overwrite\nerror: there is x.pth, or --out\n"
    )
    assert offer("--anything") == "--anything"  # to a reader who calls from Python
