"""Files written whole or not at all, and the lock that keeps two runs off the same ones."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkpoints import ROOT

import safe_io
from console import InputError
from safe_io import (
    Busy,
    atomic_path,
    atomic_write,
    check_output,
    locked,
    sibling,
    start_time,
)


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
    ours = {"safe_io", "console", "__main__", "__mp_main__"}
    assert not {*ran.stdout.split()} - sys.stdlib_module_names - ours


# The lock

# Holds the lock of X.pth, with a worker that has inherited all that a fork inherits.
HOLD = """
import multiprocessing, sys, time
from pathlib import Path
from safe_io import locked

with locked(Path(sys.argv[1])):
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    worker.start()
    print(worker.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of X.pth, and the number of its worker."""
    command = [sys.executable, "-c", HOLD, tmp_path / "x.pth"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        worker = int(process.stdout.readline())
        yield process, worker
        process.kill()
        os.kill(worker, signal.SIGKILL)


def test_lock_of_another_process_names_it_and_ends_with_it(holder, tmp_path):
    process, worker = holder
    path = tmp_path / "x.pth"
    name = f"process {process.pid} on {socket.gethostname()}"
    with pytest.raises(Busy, match=f"x.pth is being written by {name}; wait"), locked(path):
        pass
    process.kill()
    process.wait()
    assert start_time(worker) is not None
    with locked(path):
        pass


def test_lock_can_be_waited_for(holder, tmp_path):
    process, _ = holder
    process.send_signal(signal.SIGSTOP)  # it is there, and holds on, until it is killed
    subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {process.pid}"])
    with locked(tmp_path / "x.pth", wait=True):
        assert process.wait() == -signal.SIGKILL


def test_second_lock_in_one_process_is_busy_and_does_not_end_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    probe = (
        "import pathlib, safe_io\n"
        f"with safe_io.locked(pathlib.Path({str(tmp_path / 'x.pth')!r})): pass"
    )
    with locked(tmp_path / "x.pth"):
        with pytest.raises(Busy, match="by this process already"), locked(Path("x.pth")):
            pass
        ran = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True)
        assert b"Busy" in ran.stderr
    with locked(Path("x.pth")):
        pass


@pytest.mark.parametrize("content", ["", "not text \x00", '{"host": "elsewhere", "pid": 1}'])
def test_lock_file_that_nobody_holds_is_free_whatever_it_says(content, tmp_path):
    file = sibling(tmp_path / "x.pth", ".lock")
    file.write_text(content)
    with locked(tmp_path / "x.pth"):
        assert file.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert file.exists()


def test_disk_without_locks_is_a_warning(tmp_path, monkeypatch, capsys):
    import fcntl

    def refuse(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with locked(tmp_path / "x.pth"):
        pass
    assert "x.pth cannot be locked here" in capsys.readouterr().err


def test_zombie_is_gone():
    child = subprocess.Popen([sys.executable, "-c", ""])
    while start_time(child.pid) is not None:
        time.sleep(0.05)
    child.wait()


def test_without_proc_a_process_is_told_by_its_number(monkeypatch):
    """As on macOS. (A number that is none belongs to no process.)"""

    def missing(path, **options):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    assert start_time(os.getpid()) == "unknown"
    assert start_time(2**22 + 1) is None
    assert start_time(10**30) is None
