"""`python -m datasets check` and `resize`: exit codes, what is printed, what is on the disk."""

import errno
import io
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from console import InputError, run
from datasets import DATASETS, find, load
from datasets.__main__ import main
from datasets.decode import decode
from datasets.folder import Samples, Splits
from datasets.loader import make_loader
from datasets.transforms import resize
from datasets.workers import in_chunks, in_processes

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "datasets"]


def call(*options, workers=0):
    """Exit code of a command, in this process."""
    return run(lambda: main([*map(str, options), "--workers", str(workers)]))


def picture(seed=0, size=(50, 40)):
    """A smooth picture with a little noise; another for every seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray((pixels + rng.integers(-3, 4, pixels.shape)).clip(0, 255).astype("u1"))


def put(path, *, seed=0, mode="RGB", size=(50, 40), kind=None):
    """Write a picture; kind: PIL's format where the name's ending says another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, size).convert(mode).save(path, kind)


def files(root):
    """Path below root -> content, of every file; folders end in a slash."""
    contents = {}
    for path in sorted(root.rglob("*")):
        name = os.path.relpath(path, root)
        contents[f"{name}/" if path.is_dir() else name] = (
            None if path.is_dir() else path.read_bytes()
        )
    return contents


@pytest.fixture
def src(tmp_path):
    """Two classes, one with a folder inside; 7 images."""
    root = tmp_path / "src"
    for i in range(3):
        put(root / f"a/{i}.jpg", seed=i)
    put(root / "b/deep/er/x.JPEG", seed=3)
    put(root / "b/deep/y.png", seed=4)
    put(root / "b/z.tif", seed=5, size=(33, 90))
    put(root / "b/small.bmp", seed=6, size=(3, 2))
    return root


@pytest.fixture
def dst(tmp_path):
    return tmp_path / "dst"


# resize: what is written


def test_images_are_the_first_step_of_training_under_the_same_names(src, dst, capsys):
    assert call("resize", src, dst, "--size", 64) == 0
    assert list(files(dst)) == list(files(src))
    for name, content in files(dst).items():
        if content is None:
            continue
        scaled = resize(decode((src / name).read_bytes()), 64)
        assert decode(content).shape == (3, 64, 64)
        assert (decode(content).float() - scaled.float()).abs().mean() < 3
        again = io.BytesIO()
        pixels = scaled.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(again, "JPEG", quality=95, subsampling="4:2:0")
        assert content == again.getvalue()
    out = capsys.readouterr().out
    assert f"{src}: 7 images, to 64 x 64 pixels in {dst}" in out
    assert "resize: 7 of 7 images" in out
    assert f"{dst}: 7 images written, 0 already there, 0 unreadable" in out


def test_size_is_224_unless_given(src, dst):
    assert call("resize", src, dst) == 0
    assert Image.open(dst / "b/small.bmp").size == (224, 224)


def test_processes_write_the_same_as_none(src, dst, tmp_path):
    assert call("resize", src, dst, "--size", 24, workers=2) == 0
    assert call("resize", src, tmp_path / "other", "--size", 24) == 0
    assert files(dst) == files(tmp_path / "other")
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA", "I;16"])
def test_every_mode_ends_as_rgb(mode, tmp_path):
    path = tmp_path / "src/a" / ("x.jpg" if mode == "CMYK" else "x.png")
    path.parent.mkdir(parents=True)
    if mode == "I;16":
        ramp = np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)
        Image.fromarray(ramp).save(path)
    else:
        picture().convert(mode).save(path)
    assert call("resize", tmp_path / "src", tmp_path / "dst", "--size", 32) == 0
    with Image.open(tmp_path / "dst/a" / path.name) as image:
        assert (image.mode, image.format, image.size) == ("RGB", "JPEG", (32, 32))
        pixels = np.asarray(image).astype(int)
    assert abs(pixels - resize(decode(path.read_bytes()), 32).permute(1, 2, 0).numpy()).mean() < 5
    if mode == "I;16":
        # Scaled to 8 bits: clipping would leave almost nothing but white.
        assert 120 < pixels.mean() < 135


def test_the_scaled_folder_is_the_same_data_set(src, dst):
    for i in range(8):
        put(src / f"a/more/{i}.png", seed=i)
    assert call("resize", src, dst, "--size", 16) == 0
    before, after = find("Folder", src), find("Folder", dst)
    for old, new in zip(before[1:3], after[1:3], strict=True):
        assert [os.path.relpath(path, src) for path in old.images] == [
            os.path.relpath(path, dst) for path in new.images
        ]
        assert old.labels == new.labels


def test_hidden_files_are_left_out_and_lists_are_copied(src, dst, capsys):
    put(src / "a/._0.jpg")
    put(src / ".cache/x.jpg")
    (src / "b/.hidden.txt").write_text("x")
    (src / "images.txt").write_bytes(b"1 a/0.jpg\r\n\xff")
    (src / "empty.csv").touch()
    (src / "b/deep/boxes.mat").write_bytes(bytes(range(256)))
    (src / "all.TAR.gz").write_bytes(b"the images")
    os.symlink(src / "nowhere", src / "broken.txt")
    assert call("resize", src, dst, "--size", 16) == 0
    made = files(dst)
    assert not [name for name in made if "/." in f"/{name}"]
    for name in ("images.txt", "empty.csv", "b/deep/boxes.mat"):
        assert made[name] == (src / name).read_bytes()
    assert not {"broken.txt", "all.TAR.gz"} & set(made)
    assert "7 images written" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["mine", "LIST"])
def test_other_content_in_the_way_of_a_list_is_an_error_and_stays(content, src, dst, capsys):
    (src / "list.txt").write_text("list")
    dst.mkdir()
    (dst / "list.txt").write_text(content)
    assert call("resize", src, dst, "--size", 16) == 2
    assert capsys.readouterr().err == (
        f"error: {dst}/list.txt is there already with other content than {src}/list.txt (your own "
        "file, or a copy of an older version); remove it or give another folder\n"
    )
    assert (dst / "list.txt").read_text() == content
    (dst / "list.txt").unlink()
    assert call("resize", src, dst, "--size", 16) == 0
    assert (dst / "list.txt").read_text() == "list"


def test_names_of_any_bytes_and_of_full_length(tmp_path, dst, capsys):
    folder = os.fsencode(tmp_path) + b"/src/caf\xe9 \xe7\x8c\xab"
    os.makedirs(folder)
    names = [b"\xff.jpg", "gr\u00fcn.png".encode(), b"x" * 251 + b".png"]
    for name in names:
        picture().save(tmp_path / "x.png")
        os.rename(tmp_path / "x.png", folder + b"/" + name)
    with open(folder + b"/bad\xfe.jpg", "wb"):
        pass
    for workers in (2, 0):
        assert call("resize", tmp_path / "src", dst, "--size", 16, workers=workers) == 1
    assert sorted(os.listdir(os.fsencode(dst) + b"/caf\xe9 \xe7\x8c\xab")) == sorted(names)
    printed = capsys.readouterr()
    assert "src/caf\\udce9 \u732b/bad\\udcfe.jpg: empty file" in printed.err


def test_links_are_followed_once(src, dst, tmp_path):
    for i in range(5):
        put(tmp_path / f"elsewhere/{i}.png", seed=i)
    os.symlink(tmp_path / "elsewhere", src / "c")
    os.symlink(src / "a", src / "d")
    os.symlink("../b", src / "b/again")
    os.symlink(tmp_path, src / "up")
    os.symlink(src / "a/0.jpg", src / "a/link.jpg")
    assert call("resize", src, dst, "--size", 16) == 0
    assert (dst / "c/1.png").is_file()
    assert not (dst / "c").is_symlink()
    assert os.readlink(dst / "d") == "a"
    assert not (dst / "b/again").exists()
    assert not (dst / "up").exists()
    assert (dst / "a/link.jpg").read_bytes() == (dst / "a/0.jpg").read_bytes()
    assert not (dst / "a/link.jpg").is_symlink()
    assert find("Folder", dst).classes == ["a", "b", "c", "d"]
    assert call("resize", src, dst, "--size", 16) == 0


# resize: going on


def test_what_is_done_is_not_done_again(src, dst, capsys):
    (src / "list.txt").write_text("list")
    assert call("resize", src, dst, "--size", 16) == 0
    before = {path: path.stat().st_mtime_ns for path in dst.rglob("*.*")}
    content = (dst / "a/1.jpg").read_bytes()
    (dst / "a/1.jpg").unlink()
    capsys.readouterr()
    assert call("resize", src, dst, "--size", 16) == 0
    assert "1 images written, 6 already there, 0 unreadable" in capsys.readouterr().out
    after = {path: path.stat().st_mtime_ns for path in dst.rglob("*.*")}
    assert {path for path in before if before[path] != after[path]} == {dst / "a/1.jpg"}
    assert (dst / "a/1.jpg").read_bytes() == content


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: bytes(99), lambda data: data[:-9]]
)
def test_what_a_power_cut_leaves_is_done_again(damage, src, dst):
    assert call("resize", src, dst, "--size", 16) == 0
    whole = files(dst)
    (dst / "b/z.tif").write_bytes(damage(whole["b/z.tif"]))
    assert call("resize", src, dst, "--size", 16) == 0
    assert files(dst) == whole


def test_other_files_in_the_way_are_an_error_and_stay(src, dst, capsys):
    assert call("resize", src, dst, "--size", 16) == 0
    assert call("resize", src, dst, "--size", 17) == 2
    assert "0.jpg is there already, but is no JPEG of 17 x 17 pixels" in capsys.readouterr().err
    put(dst / "a/0.jpg", kind="PNG", size=(16, 16))
    before = files(dst)
    assert call("resize", src, dst, "--size", 16) == 2
    assert files(dst) == before


# resize: what goes wrong


def test_unreadable_images_are_named_and_left_out(src, dst, capsys):
    for i in range(22):
        (src / f"a/bad{i:02}.jpg").write_bytes(b"no image" if i else b"")
    whole = (src / "a/0.jpg").read_bytes()
    (src / "a/cut.jpg").write_bytes(whole[: len(whole) // 2])
    os.symlink(src / "nowhere", src / "a/lost.jpg")
    assert call("resize", src, dst, "--size", 16) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 21
    assert lines[0] == f"warning: cannot read {src}/a/bad00.jpg: empty file"
    assert lines[1] == f"warning: cannot read {src}/a/bad01.jpg: not an image of a known format"
    assert lines[-1] == "warning: cannot read 4 more"
    assert len(list(dst.rglob("*.*"))) == 7
    assert call("resize", src, dst, "--size", 16) == 1
    assert "0 images written, 7 already there, 24 unreadable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere", "dst"], "nowhere does not exist; give the folder of the images"),
        (["src/a/0.jpg", "dst"], "0.jpg is not a folder; give the folder of the images"),
        (["empty", "dst"], "no images in .*empty: no file below it ends in .jpg"),
        (["src", "src"], "src and .*src are the same or one is in the other"),
        (["src", "alias"], "src and .*alias are the same or one is in the other"),
        (["src", "src/small"], "src and .*src/small are the same or one is in the other"),
        (["src/a", "src"], "src/a and .*src are the same or one is in the other"),
        (["linked", "dst/deep"], "linked/x and .*dst/deep are the same or one is in the other"),
        (["src", "src/a/0.jpg"], "0.jpg is not a folder; give one for the scaled images"),
        (["src", "linked/a/1.png/x"], "cannot create the folder .*: Not a directory"),
        (["src", "dst", "--size", "0"], "--size: must be a whole number of at least 1, not '0'"),
        (["src", "dst", "--size", "70000"], "--size 70000 is more than a JPEG can hold, 65500"),
        (["src"], r"required: DST \(see python -m datasets resize --help\)"),
    ],
)
def test_bad_input_is_one_line(options, words, src, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("empty/x.txt").touch()
    os.symlink("src", "alias")
    put(Path("linked/a/1.png"))
    Path("dst").mkdir()
    os.symlink("../dst", "linked/x")
    before = files(src)
    assert call("resize", *options) == 2
    printed = capsys.readouterr()
    assert re.search(words, printed.err)
    assert len(printed.err.splitlines()) == 1
    assert files(src) == before


@pytest.mark.parametrize("workers", [0, 2])
def test_full_disk_is_one_line_and_leaves_nothing_half(workers, src, dst, monkeypatch, capsys):
    write_bytes = Path.write_bytes

    def fill(path, data):
        write_bytes(path, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fill)
    assert call("resize", src, dst, "--size", 16, workers=workers) == 2
    monkeypatch.undo()
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"error: cannot write .*/dst/.*: No space left on device; .*", line)
    assert not [path for path in dst.rglob("*") if path.is_file()]
    assert not multiprocessing.active_children()
    assert call("resize", src, dst, "--size", 16) == 0


# resize: signals


@pytest.fixture
def many(tmp_path):
    """1,200 images that take some seconds."""
    put(tmp_path / "big.jpg", size=(1200, 900))
    for i in range(1200):
        path = tmp_path / f"many/{i % 3}/{i:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / "big.jpg", path)
    return tmp_path / "many"


def start(*options):
    """Start a command in a process group of its own; wait for its first images."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, options)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert any("images/s" in line for line in process.stdout)
    return process


def test_resize_outlives_the_reader_of_its_lines(tmp_path):
    put(tmp_path / "src/one.jpg", size=(40, 30))
    reader, writer = os.pipe()
    os.close(reader)
    words = [*COMMAND, "resize", tmp_path / "src", tmp_path / "dst", "--workers", 0]
    ran = subprocess.run(
        list(map(str, words)), cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "dst/one.jpg").exists()


def members(group):
    """Ids of the processes of a group that run, the first one left out."""
    running = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX" and int(stat.parent.name) != group:
            running.append(int(stat.parent.name))
    return running


def assert_all_end(group):
    deadline = time.monotonic() + 15
    while members(group):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def half_written(root):
    return [path for path in root.rglob(".*") if path.is_file()]


def test_interrupted_run_goes_on_where_it_was(many, dst, capsys):
    process = start("resize", many, dst, "--size", 32, "--workers", 2)
    assert len(members(process.pid)) == 2
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert err == "interrupted; the same command goes on from here\n"
    assert "\r" not in out
    assert_all_end(process.pid)
    assert not half_written(dst)
    done = {path: path.stat().st_mtime_ns for path in dst.rglob("*.jpg")}
    assert 0 < len(done) < 1200
    # All images are the same one, so the rest need not be scaled for this.
    for path in many.rglob("*.jpg"):
        if (target := dst / path.relative_to(many)) not in done and path.name != "1199.jpg":
            target.parent.mkdir(exist_ok=True)
            os.link(next(iter(done)), target)
    assert call("resize", many, dst, "--size", 32, workers=2) == 0
    assert "1 images written, 1199 already there" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert len({path.read_bytes() for path in dst.rglob("*.jpg")}) == 1


def test_workers_end_when_the_command_is_killed(many, dst):
    process = start("resize", many, dst, "--size", 32, "--workers", 2)
    process.kill()
    process.communicate(timeout=60)
    assert_all_end(process.pid)


# Processes and progress


def negate(chunk):
    return [-x for x in chunk]


def fail(chunk):
    raise InputError(f"chunk {chunk}")


def die(chunk):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("number", [0, 1, 10, 11])
def test_every_chunk_is_worked_on_once(workers, number):
    results = in_processes(negate, in_chunks(range(number), 2), workers=workers)
    assert sorted(x for chunk in results for x in chunk) == sorted(-i for i in range(number))
    assert not multiprocessing.active_children()


def test_errors_and_deaths_of_processes_are_input_errors():
    with pytest.raises(InputError, match="chunk 1"):
        list(in_processes(fail, [1, 2, 3], workers=2))
    with pytest.raises(InputError, match=r"was killed.*--workers$"):
        list(in_processes(die, range(9), workers=2))
    assert not multiprocessing.active_children()


def test_iteration_that_is_given_up_leaves_no_process():
    results = in_processes(negate, in_chunks(range(100), 1), workers=2)
    next(results)
    results.close()
    assert not multiprocessing.active_children()


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(tmp_path, monkeypatch, capsys):
    for i in range(40):
        put(tmp_path / f"src/{i}.png", seed=i, size=(4, 4))
    assert call("resize", tmp_path / "src", tmp_path / "one", "--size", 4) == 0
    printed = capsys.readouterr()
    done = re.findall(r"^resize: (\d+) of 40 images, \d+ images/s$", printed.out, re.MULTILINE)
    assert done == ["16", "32", "40"]
    assert printed.err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert call("resize", tmp_path / "src", tmp_path / "two", "--size", 4) == 0
    printed = capsys.readouterr()
    assert "of 40" not in printed.out
    assert "resize" in printed.err


# check


def table(out):
    """Name of a row -> its two numbers as printed, of both tables."""
    rows = re.findall(r"^(\S.{23}) +(\d+) +(\d+|-)(?:  (.*))?$", out, re.MULTILINE)
    return {
        name.strip(): (first, second, *([note] * bool(note))) for name, first, second, note in rows
    }


def put_folder(root, train=8, val=4, **options):
    """Class folders a and b, all images different."""
    for split, number in (("train", train), ("val", val)):
        for label in "ab":
            for i in range(number):
                seed = 1000 * (split == "val") + 500 * (label == "b") + i
                put(root / split / label / f"{split}{i}.png", seed=seed, size=(9, 8), **options)
    return root


def test_good_folder(tmp_path, capsys):
    root = put_folder(tmp_path)
    put(root / "train/b/extra.jpg", seed=9)
    assert call("check", "folder", root) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Folder in {root}\n")
    assert table(out) == {
        "classes": ("2", "-"),
        "training images": ("17", "-"),
        "validation images": ("8", "-"),
        "smallest class": ("8", "4", "a"),
        "largest class": ("9", "4", "b / a"),
        "unreadable": ("0", "0"),
        "greyscale (L)": ("0", "0"),
        "other format than name": ("0", "0"),
        "name in both splits": ("0", "0"),
        "content in both splits": ("0", "0"),
    }
    assert out.endswith("\nnothing here that training would refuse\n")
    assert out.isascii()


def test_published_numbers_stand_beside_those_found(tmp_path, monkeypatch, capsys):
    root = put_folder(tmp_path)
    monkeypatch.setitem(DATASETS, "Folder", DATASETS["Folder"]._replace(published=(2, 16, 9)))
    assert call("check", "Folder", root) == 0
    rows = table(capsys.readouterr().out)
    assert rows["classes"] == ("2", "2")
    assert rows["training images"] == ("16", "16")
    assert rows["validation images"] == ("8", "9", "differs")


def test_odd_files_are_counted(tmp_path, capsys):
    root = put_folder(tmp_path)
    put(root / "train/a/grey.jpg", mode="L")
    put(root / "val/a/grey.png", mode="L")
    put(root / "train/a/inks.jpg", mode="CMYK")
    put(root / "train/b/really.jpg", kind="PNG", seed=1)
    put(root / "val/b/tagged.TIF", kind="JPEG", seed=2)
    put(root / "val/b/right.pgm", mode="L", seed=3)
    for workers in (0, 2):
        assert call("check", "Folder", root, workers=workers) == 0
        out = capsys.readouterr().out
        rows = table(out)
        assert rows["greyscale (L)"] == ("1", "2")
        assert rows["mode CMYK"] == ("1", "0")
        assert rows["other format than name"] == ("1", "1")
        assert "other format than name: train/b/really.jpg is PNG\n" in out
        assert "other format than name: val/b/tagged.TIF is JPEG\n" in out
    assert not multiprocessing.active_children()


def test_images_in_both_splits_are_counted(tmp_path, capsys):
    root = put_folder(tmp_path)
    content = (root / "train/a/train3.png").read_bytes()
    for name in ("val/b/copy.png", "val/a/copy.png", "train/b/copy.png"):
        (root / name).write_bytes(content)
    put(root / "val/a/train5.png", seed=12345)
    # Both cannot be read: no more is known of them.
    for i in range(100):
        put(root / f"train/a/more{i}.png", seed=7000 + i, size=(4, 4))
        put(root / f"val/a/other{i}.png", seed=8000 + i, size=(4, 4))
    (root / "train/a/empty_one.png").touch()
    (root / "val/a/empty_two.png").touch()
    assert call("check", "Folder", root) == 0
    out = capsys.readouterr().out
    rows = table(out)
    assert rows["content in both splits"] == ("2", "2")
    assert "content in both splits: train/a/train3.png, val/a/copy.png\n" in out
    assert rows["name in both splits"] == ("3", "3")
    assert "name in both splits: train/a/train5.png, val/a/train5.png\n" in out
    assert rows["unreadable"] == ("1", "1")


def test_same_names_of_different_images_are_no_fault(tmp_path, capsys):
    root = put_folder(tmp_path)
    put(root / "val/a/train5.png", seed=12345)
    assert call("check", "Folder", root) == 0
    out = capsys.readouterr().out
    assert table(out)["name in both splits"] == ("2", "1", "of different images")
    assert "train/a/train5.png, val" not in out


def test_junk_and_depth_of_files_are_counted(tmp_path, capsys):
    root = put_folder(tmp_path)
    put(root / "train/a/junk.jpg", seed=1)
    put(root / "train/b/behind.jpg", seed=2)
    data = (root / "train/a/junk.jpg").read_bytes()
    (root / "train/a/junk.jpg").write_bytes(data[:-2] + b"\0\x11\x22" * 9 + data[-2:])
    for name in ("train/b/behind.jpg", "val/b/val0.png"):
        with open(root / name, "ab") as file:
            file.write(b"12345")
    ramp = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for name, scale in (("train/a/12.png", 64), ("train/b/16.png", 1024), ("val/a/8.png", 4)):
        Image.fromarray(ramp * scale).save(root / name)
    for workers in (0, 2):
        assert call("check", "Folder", root, workers=workers) == 0
        out = capsys.readouterr().out
        rows = table(out)
        assert rows["junk or damage in file"] == ("2", "1")
        assert "junk or damage in file: train/a/junk.jpg: Corrupt JPEG data: 2" in out
        assert "junk or damage in file: train/b/behind.jpg: 5 bytes behind its end\n" in out
        assert "junk or damage in file: val/b/val0.png: 5 bytes behind its end\n" in out
        note = "others not: give all images one range"
        assert rows["12 bits in a 16-bit file"] == ("1", "0", f"scaled by 4095, {note}")
        assert rows["8 bits in a 16-bit file"] == ("0", "1", f"scaled by 255, {note}")
        assert out.endswith("training would refuse, but see what is odd above\n")


def test_arrays_have_counts_and_duplicates_only(tmp_path, monkeypatch, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    val = pixels[20:].copy()
    val[3] = pixels[7]
    splits = Splits(["a", "b"], Samples(pixels[:20], [0, 1] * 10), Samples(val, [0, 1] * 5))
    source = DATASETS["CIFAR-10"]._replace(read=lambda top: splits, marker=os.path.isdir)
    monkeypatch.setitem(DATASETS, "CIFAR-10", source)
    assert call("check", "cifar10", tmp_path) == 0
    out = capsys.readouterr().out
    rows = table(out)
    assert rows["training images"][0] == "20"
    assert rows["smallest class"] == ("10", "5", "a")
    assert rows["content in both splits"] == ("1", "1")
    assert "content in both splits: training image 7, validation image 3\n" in out


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (["train/a/train0.png"], None),
        (
            ["train/a/train0.png", "train/b/train1.png"],
            "2 of 120 training images cannot be read, more than 1 %.*/train/a/train0.png: empty",
        ),
        (["val/a/val0.png"], "1 of 40 validation images cannot be read, more than 1 %"),
        (["train/c/only.png"], "none of the 1 training images of class c can be read"),
        (["train/c/only.png", "train/c/more.png"], "2 of 122 training images cannot be read"),
    ],
)
def test_check_refuses_what_the_loader_refuses(bad, words, tmp_path, capsys):
    root = put_folder(tmp_path, train=60, val=20)
    for name in bad:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    assert call("check", "Folder", root) == (2 if words else 0)
    printed = capsys.readouterr()
    assert table(printed.out)["unreadable"] == (
        str(sum(name.startswith("train") for name in bad)),
        str(sum(name.startswith("val") for name in bad)),
    )
    assert f"unreadable: {min(bad)}: empty file\n" in printed.out
    if words:
        assert re.search(words, printed.err.splitlines()[-1])

    def read_all():
        for dataset, train in zip(load("Folder", root, image_size=8), (True, False), strict=False):
            loader = make_loader(
                dataset, batch_size=10, seed=0, train=train, num_workers=0, device="cpu"
            )
            for _ in loader:
                pass

    if words:
        with pytest.raises(InputError, match="be read"):
            read_all()
    else:
        read_all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["CIFAR-11", "."], "unknown data set 'CIFAR-11'"),
        (["Folder", "one"], "has only one class, a; at least two are needed"),
        (["Folder", "nowhere"], r"no Folder in nowhere \(does not exist\)"),
        (["Folder"], r"required: DIR \(see python -m datasets check --help\)"),
        (["Folder", ".", "--work", "2"], "unrecognized arguments: --work"),
    ],
)
def test_check_passes_on_what_is_wrong(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(Path("one/a/1.png"))
    assert call("check", *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line)


def test_check_changes_nothing_and_can_be_interrupted(tmp_path, monkeypatch, capsys):
    root = put_folder(tmp_path)
    before = files(root)

    def interrupt(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)

    monkeypatch.setattr(Image, "open", interrupt)
    assert call("check", "Folder", root) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "interrupted; nothing was changed\n"
    assert files(root) == before


# The command line


def test_wrong_command_and_help(capsys):
    assert run(lambda: main([])) == 2
    assert re.fullmatch(r"error: .*required: COMMAND \(see .*--help\)\n", capsys.readouterr().err)
    assert run(lambda: main(["shrink"])) == 2
    assert "invalid choice: 'shrink'" in capsys.readouterr().err
    for options, words in (
        (["--help"], "check.*resize"),
        (["check", "--help"], "python -m datasets check .*NAME DIR.*CIFAR-10"),
        (["resize", "--help"], r"python -m datasets resize .*SRC DST.*default: 224"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(options)
        assert ended.value.code == 0
        assert re.search(words, capsys.readouterr().out, re.DOTALL)


def test_exit_codes_of_the_command(src, dst):
    (src / "a/bad.jpg").write_bytes(b"")
    command = [*COMMAND, "resize", src, dst, "--size", "16", "--workers", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"warning: cannot read {src}/a/bad.jpg: empty file\n"
    assert "\r" not in done.stdout
