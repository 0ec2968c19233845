"""One-line errors, exit codes, types of arguments, and files written whole or not at all."""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import ROOT

import safe_io
from safe_io import (
    ArgumentParser,
    InputError,
    SaidByFirst,
    ascii_line,
    atomic_path,
    atomic_write,
    check_output,
    integer,
    number,
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
    assert capsys.readouterr() == ("", "error: no such file: \\xe4\\x1b[2J\n")


def test_interrupt_is_one_line_and_exit_code_130(capsys):
    assert run(raiser(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_mistake_of_the_program_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        run(raiser(ZeroDivisionError()))


def test_reader_of_stdout_may_leave():
    code = "import safe_io; exit(safe_io.run(lambda: [safe_io.say('x') for _ in range(99999)]))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 1


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a  b\nc\r\n", "a  b c"),
        ("\u03b8_r", "\\u03b8_r"),
        ("\x1b[2J\t\x07", "\\x1b[2J\\x09\\x07"),
        (os.fsdecode(b"\xff.pth"), "\\udcff.pth"),
        (Path("x"), "x"),
    ],
)
def test_any_text_becomes_one_line_of_ascii(text, line):
    assert ascii_line(text) == line


# Several processes

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@pytest.fixture
def become(monkeypatch, tmp_path):
    """Makes this process the one of the given rank that torchrun starts on this machine."""

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


def test_error_that_all_processes_have_is_printed_once(become, capsys):
    for rank in (1, 0):
        become(rank)
        assert run(raiser(InputError("no such folder"))) == 2
    assert capsys.readouterr().err == "error: no such folder\n"


def test_error_of_one_process_alone_is_printed_whichever_it_is(become, capsys):
    for rank in (0, 1):
        become(rank)
        run(raiser(InputError(f"only {rank} has it")))
    assert capsys.readouterr().err == "error: only 0 has it\nerror: only 1 has it\n"
    become(1)
    run(raiser(SaidByFirst("the first one prints it")))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error_file", ["", os.devnull, "/none/0/error.json"])
def test_error_is_printed_by_all_where_they_share_no_folder(error_file, become, capsys):
    for rank in (0, 1):
        become(rank, error_file=error_file)
        run(raiser(InputError("no such folder")))
    assert capsys.readouterr().err == "error: no such folder\n" * 2


def test_error_that_all_processes_of_torchrun_have_is_printed_once(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from safe_io import InputError, run\n"
        "def main():\n"
        "    raise InputError('no such folder')\n"
        "sys.exit(run(main))\n"
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


# Files


def test_output_in_a_folder_that_is_there_is_fine_and_nothing_is_left(tmp_path):
    assert check_output(tmp_path / "x.json") == tmp_path / "x.json"
    assert list(tmp_path.iterdir()) == []


def test_output_that_exists_is_fine_and_untouched(tmp_path):
    (tmp_path / "x.json").write_text("old")
    check_output(tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/x.json", r"the folder \S+none does not exist; create it first"),
        ("file/x.json", r"the folder \S+file does not exist"),
        ("folder", r"it is a folder; give a file name"),
        ("device", r"it is no regular file"),
    ],
)
def test_output_that_cannot_be_written_is_refused(name, message, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to(os.devnull)
    with pytest.raises(InputError, match=rf"cannot write \S+{name}: {message}"):
        check_output(tmp_path / name)


def test_output_in_a_folder_without_permission_is_refused():
    # Even root cannot make a file there.
    if not os.path.isdir("/proc/self"):
        pytest.skip("no folder that refuses everybody")
    with pytest.raises(InputError, match=r"cannot write /proc/self/x: .*; choose another folder"):
        check_output("/proc/self/x")


def test_written_file_is_whole_and_in_utf8(tmp_path):
    atomic_write(tmp_path / "x.json", "\u03b8\n")
    assert (tmp_path / "x.json").read_bytes() == b"\xce\xb8\n"
    assert os.listdir(tmp_path) == ["x.json"]


def test_new_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    atomic_write(tmp_path / "x", "")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_old_file_is_there_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        assert path.read_text() == "old"
        assert temporary.parent == tmp_path  # a rename works within one file system only
    assert path.read_text() == "half"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, InputError])
def test_failure_leaves_the_old_file_and_nothing_else(error, tmp_path):
    path = tmp_path / "x"
    path.write_text("old")

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failure_of_the_disk_is_one_line_and_leaves_the_old_file(call, tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_text("old")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safe_io.os, call, fail)
    with pytest.raises(
        InputError, match=r"cannot write \S+x: No space left on device; .*untouched"
    ):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_new_file_is_on_the_disk_before_it_replaces_the_old(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            safe_io.os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))
        )
    atomic_write(tmp_path / "x", "new")
    assert calls == ["fsync", "replace", "fsync"]  # the last one: the folder


def test_only_the_standard_library_is_imported():
    code = "import sys, safe_io; print(*{m.partition('.')[0] for m in sys.modules})"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    # multiprocessing gives the main module a second name.
    ours = {"safe_io", "__main__", "__mp_main__"}
    assert not {*ran.stdout.split()} - sys.stdlib_module_names - ours
