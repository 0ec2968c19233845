"""Split archives: joined to the exact file, or one line that says what is wrong, and no debris."""

import builtins
import errno
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from archives import CONTENT, INFO_ZIP, contents, make, store
from hypothesis import given, settings
from hypothesis import strategies as st

from console import InputError
from models import split_zip


def joined(archive):
    """What `join` writes; it leaves the parts alone and nothing else behind."""
    before, target = contents(archive.parent), archive.with_name("out.pth")
    split_zip.join(archive, target)
    after = contents(archive.parent)
    result = after.pop("out.pth")
    assert after == before
    target.unlink()
    return result


def refusal(archive, target=None):
    """The message of the InputError `join` raises; it leaves the folder as it was."""
    before = contents(archive.parent)
    with pytest.raises(InputError) as caught:
        split_zip.join(archive, target or archive.with_name("out.pth"))
    assert contents(archive.parent) == before
    message = str(caught.value)
    assert message.isprintable()
    return message


def peak_memory(archive, target):
    """The most bytes that Python held while joining."""
    tracemalloc.start()
    try:
        split_zip.join(archive, target)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Every cut from one byte past the marker on, so that each header lies across parts somewhere.
@pytest.mark.parametrize("part_size", [5, 7, 16, 31, 47, 64, 100, 1000, 10**6])
@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize(("descriptor", "zip64"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_round_trip(tmp_path, part_size, method, descriptor, zip64):
    content = CONTENT[:600]
    parts = make(content, part_size, method=method, descriptor=descriptor, zip64=zip64)
    assert joined(store(tmp_path, parts)) == content


@pytest.mark.parametrize("content", [b"", b"a", CONTENT], ids=len)
@pytest.mark.parametrize("part_size", [None, 50])
def test_contents_of_any_size(tmp_path, content, part_size):
    assert joined(store(tmp_path, make(content, part_size))) == content


# Zeros take few bits, so zlib has read all input while output beyond a full block is still to come.
@pytest.mark.parametrize("beyond", [-1, 0, 1, 20, 100, 200, 258, 300])
@pytest.mark.parametrize("blocks", [1, 3])
def test_contents_that_end_near_a_block(tmp_path, blocks, beyond):
    content = bytes(blocks * split_zip.BLOCK + beyond)
    assert joined(store(tmp_path, make(content, 500))) == content


def test_comment_and_suffix_in_capitals(tmp_path):
    parts = make(part_size=300, names=["x y.PTH"], comment=b"hello" * 9000)
    assert joined(store(tmp_path, parts, z="Z", name="X.ZIP")) == CONTENT


def test_letters_of_the_parts_may_differ_from_the_last(tmp_path):
    assert joined(store(tmp_path, make(part_size=300), z="Z", name="X.v1.zip")) == CONTENT


def test_more_than_99_parts(tmp_path):
    archive = store(tmp_path, make(method=0, part_size=20))
    assert (tmp_path / "X.z150").exists()
    assert joined(archive) == CONTENT
    (tmp_path / "X.z100").unlink()
    assert "part X.z100 of" in refusal(archive)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_single_file_of_pythons_zipfile(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "X.zip", "w", method) as file:
        file.writestr("X.pth", CONTENT)
    # Parts of another archive that lie beside a whole one do not matter.
    (tmp_path / "X.z01").write_bytes(b"stale")
    assert joined(tmp_path / "X.zip") == CONTENT


@pytest.mark.skipif(INFO_ZIP is None, reason="Info-ZIP's zip is not installed")
@pytest.mark.parametrize("options", ["-s 64k", "-s 100k -0", "-s 64k -fz", "-fz", "-fd", ""])
def test_info_zip(tmp_path, options):
    content = random.Random(0).randbytes(300_000) + bytes(300_000)
    (tmp_path / "X.pth").write_bytes(content)
    subprocess.run([INFO_ZIP, "-q", *options.split(), "X.zip", "X.pth"], cwd=tmp_path, check=True)
    assert (tmp_path / "X.z04").exists() == ("-s" in options)
    assert joined(tmp_path / "X.zip") == content


@pytest.mark.skipif(INFO_ZIP is None, reason="Info-ZIP's zip is not installed")
def test_info_zip_encrypted(tmp_path):
    (tmp_path / "X.pth").write_bytes(CONTENT)
    subprocess.run([INFO_ZIP, "-qP", "secret", "X.zip", "X.pth"], cwd=tmp_path, check=True)
    assert "X.zip is encrypted; unpack it by hand" in refusal(tmp_path / "X.zip")


def test_existing_target_is_replaced_or_kept(tmp_path):
    archive, target = store(tmp_path, make(part_size=300)), tmp_path / "X.pth"
    target.write_bytes(b"old")
    split_zip.join(archive, target)
    assert target.read_bytes() == CONTENT
    store(tmp_path, make(part_size=300, crc=1))
    assert "damaged" in refusal(archive, target)
    assert target.read_bytes() == CONTENT


def test_missing_part_is_named(tmp_path):
    parts = make(part_size=300)
    archive = store(tmp_path, parts)
    for number in range(1, len(parts)):
        part = tmp_path / f"X.z{number:02d}"
        part.unlink()
        assert refusal(archive) == (
            f"part {part.name} of {archive} is missing beside it; copy all {len(parts)} parts"
        )
        part.write_bytes(parts[number - 1])
    archive.unlink()
    assert refusal(archive) == f"{archive} is missing or not a file; copy the archive again"


@pytest.mark.parametrize("name", ["X.z02", "X.zip"])
@pytest.mark.parametrize("kind", ["folder", "broken link", "pipe"])
def test_part_that_is_no_file(tmp_path, name, kind):
    archive = store(tmp_path, make(part_size=300))
    (tmp_path / name).unlink()
    if kind == "folder":
        (tmp_path / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("nowhere")
    assert f"{name} is missing or not a file" in refusal(archive)


def test_part_that_is_a_link_to_a_file(tmp_path):
    archive = store(tmp_path, make(part_size=300))
    (tmp_path / "X.z01").rename(tmp_path / "elsewhere")
    (tmp_path / "X.z01").symlink_to("elsewhere")
    assert joined(archive) == CONTENT


def test_part_that_cannot_be_read(tmp_path, monkeypatch):
    archive = store(tmp_path, make(part_size=300))

    def fail(path, *args):
        if Path(path).name == "X.z02":
            raise PermissionError(errno.EACCES, "Permission denied")
        return builtins.open(path, *args)

    monkeypatch.setattr(split_zip, "open", fail, raising=False)
    assert refusal(archive) == f"cannot read {tmp_path / 'X.z02'}: Permission denied"


@pytest.mark.parametrize("method", [0, 8])
def test_damaged_and_foreign_parts(tmp_path, method):
    parts = make(part_size=300, method=method)
    archive = store(tmp_path, parts)
    again = f"copy all {len(parts)} parts again"
    damaged = f"{archive} is damaged, or its parts are of different archives"
    part = tmp_path / "X.z02"

    other = make(CONTENT[::-1], part_size=300, method=method)
    part.write_bytes(other[1])
    assert refusal(archive) == f"{damaged}; {again}"
    part.write_bytes(parts[2])
    assert refusal(archive) == f"{damaged}; {again}"
    part.write_bytes(parts[1][:-9])
    assert refusal(archive) == f"{damaged} (X.z02 has 291 bytes, not 300); {again}"
    part.write_bytes(parts[1] + b"more")
    assert refusal(archive) == f"{damaged} (X.z02 has 304 bytes, not 300); {again}"


def test_damaged_single_file(tmp_path):
    assert refusal(store(tmp_path, make(crc=1))) == f"{tmp_path}/X.zip is damaged; copy it again"


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK\5\6", make()[0][:-9], make()[0][:500], b"PK" * 50_000], ids=len
)
def test_no_archive(tmp_path, content):
    message = refusal(store(tmp_path, [content]))
    assert re.search(r"X.zip is (not a ZIP archive, or is truncated|damaged); copy it", message)


@pytest.mark.parametrize("part_size", [None, 60])
@pytest.mark.parametrize("names", [[], ["X.pth", "Y.pth"], ["X.pth"] * 3, ["X.pth"] * 70])
def test_number_of_members(tmp_path, part_size, names):
    message = refusal(store(tmp_path, make(b"a", part_size, names=names)))
    assert f"X.zip holds {len(names)} members, not one checkpoint" in message


@pytest.mark.parametrize(
    "name",
    ["../X.pth", "/X.pth", "a/X.pth", "..\\X.pth", "C:X.pth", "..", ".", "", "ckpt/", "a/../X.pth"],
)
def test_member_that_is_no_plain_name(tmp_path, name):
    message = refusal(store(tmp_path, make(names=[name])))
    assert f"X.zip holds {name!r}, which is not a plain file name" in message


@pytest.mark.parametrize("name", ["X.txt", "Xpth", "a\nb\x1b[31m", "\u00e4"])
def test_member_of_another_kind(tmp_path, name):
    assert "not a .pth file; check which archive this is" in refusal(
        store(tmp_path, make(names=[name]))
    )


@pytest.mark.parametrize("flag", [1 << 0, 1 << 6, 1 << 13])
def test_encrypted(tmp_path, flag):
    assert "X.zip is encrypted" in refusal(store(tmp_path, make(part_size=300, flags=flag)))


@pytest.mark.parametrize("method", [1, 9, 12, 14, 93, 99])
def test_other_compression(tmp_path, method):
    assert f"is not deflated (method {method})" in refusal(store(tmp_path, make(method=method)))


@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("size", [0, len(CONTENT) - 1, len(CONTENT) + 1])
def test_wrong_size_in_the_directory(tmp_path, method, size):
    assert "damaged" in refusal(store(tmp_path, make(part_size=300, method=method, size=size)))


def test_bomb_is_stopped_at_the_size_in_the_directory(tmp_path, monkeypatch):
    archive = store(tmp_path, make(bytes(200 << 20), size=1000))
    sizes = []
    inflate = split_zip.Archive.content
    monkeypatch.setattr(
        split_zip.Archive,
        "content",
        lambda *args: (sizes.append(len(block)) or block for block in inflate(*args)),
    )
    assert "damaged" in refusal(archive)
    assert sum(sizes) <= 1000 + split_zip.BLOCK


def test_disk_without_room(tmp_path, monkeypatch):
    archive = store(tmp_path, make(part_size=300, size=94_438_447))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_500_000))
    assert "out.pth needs 94.4 MB, and 2.5 MB are available" in refusal(archive)


def test_disk_that_fills_while_writing(tmp_path):
    archive = store(tmp_path, make(bytes(2 << 20)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        message = refusal(archive)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert message.startswith(f"cannot write {tmp_path / 'out.pth'}: ")


def test_target_that_cannot_be_written(tmp_path):
    archive = store(tmp_path, make())
    assert "does not exist; create it first" in refusal(archive, tmp_path / "nowhere" / "out.pth")
    (tmp_path / "out.pth").mkdir()
    assert "it is a folder" in refusal(archive)


# Zeros deflate a thousandfold, so one block of input is far more than one of output.
@pytest.mark.parametrize(
    ("content", "method"), [(random.Random(0).randbytes(60 << 20), 0), (bytes(60 << 20), 8)]
)
def test_memory_is_bounded(tmp_path, content, method):
    archive = store(tmp_path, make(content, (10 << 20) if method == 0 else 9999, method=method))
    assert peak_memory(archive, tmp_path / "X.pth") < 4 << 20
    assert (tmp_path / "X.pth").read_bytes() == content


def test_bytes_after_the_end_of_the_deflated_stream_are_not_kept(tmp_path):
    archive = store(tmp_path, make(junk=bytes(20 << 20)))
    assert peak_memory(archive, tmp_path / "X.pth") < 4 << 20
    assert (tmp_path / "X.pth").read_bytes() == CONTENT


def test_sizes_beyond_4_gb(tmp_path, monkeypatch):
    """The ZIP64 fields are read where they matter: the size is what the disk must have room for."""
    size = 5 * 10**9
    archive = store(tmp_path, make(part_size=100, zip64=True, size=size))
    assert split_zip.Archive(archive).member().file_size == size
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size - 1))
    assert "needs 5,000.0 MB" in refusal(archive)


def test_sizes_of_a_published_archive(tmp_path):
    """cifar10_model_lr001 of the original repository, as sparse files: 20 MiB each but the last."""
    size, packed, crc, last = 94_438_447, 87_928_476, 615_670_109, 4_042_580
    name = b"cifar10_model_lr001.pth"
    entry = struct.pack(
        "<4s6H3L5H2L",
        *(b"PK\1\2", 30, 20, 0, 8, 0, 33, crc, packed, size, len(name), 0, 0, 0, 0, 0, 4),
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 4, 4, 1, 1, len(entry + name), last - 22 - 69, 0)
    archive = tmp_path / "cifar10_model_lr001.zip"
    for number in range(1, 5):
        archive.with_suffix(f".z0{number}").touch()
        os.truncate(archive.with_suffix(f".z0{number}"), 20 << 20)
    archive.touch()
    os.truncate(archive, last - 22 - 69)
    with open(archive, "ab") as file:
        file.write(entry + name + end)

    parts = split_zip.Archive(archive)
    member = parts.member()
    assert len(parts.parts) == 5
    assert (member.file_size, member.compress_size, member.CRC) == (size, packed, crc)
    assert member.filename == name.decode()
    assert member.header_offset == 4


damage = st.one_of(
    st.tuples(st.just("flip"), st.integers(0), st.integers(1, 255)),
    st.tuples(st.just("cut"), st.integers(0), st.integers(0)),
    st.tuples(st.just("add"), st.integers(0), st.binary(min_size=1, max_size=30)),
    st.tuples(st.just("remove"), st.integers(0), st.just(0)),
    st.tuples(st.just("exchange"), st.integers(0), st.integers(0)),
)
VARIANTS = [
    make(CONTENT[:200], part_size, method=method, descriptor=zip64, zip64=zip64)
    for part_size in (None, 60, 150)
    for method in (0, 8)
    for zip64 in (False, True)
]


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(VARIANTS), damage)
def test_any_damage_is_an_error_or_harmless(variant, damage):
    parts = list(variant)
    kind, where, what = damage
    number = where % len(parts)
    part = parts[number]
    if kind == "flip":
        # Over all bytes of all parts: the short last part holds most of the structure.
        at = where % sum(map(len, parts))
        number = next(i for i in range(len(parts)) if at < sum(map(len, parts[: i + 1])))
        at -= sum(map(len, parts[:number]))
        part = parts[number]
        parts[number] = part[:at] + bytes([part[at] ^ what]) + part[at + 1 :]
    elif kind == "cut":
        parts[number] = part[: what % len(part)]
    elif kind == "add":
        parts[number] += what
    elif kind == "exchange":
        other = what % len(parts)
        parts[number], parts[other] = parts[other], part
    with tempfile.TemporaryDirectory() as folder:
        archive = store(folder, parts)
        if kind == "remove":
            sorted(Path(folder).iterdir())[number].unlink()
        before, target = contents(folder), Path(folder) / "out.pth"
        try:
            split_zip.join(archive, target)
        except InputError:
            refusal(archive)
        else:
            assert kind != "remove"
            assert contents(folder) == {**before, "out.pth": CONTENT[:200]}


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        refusal(store(folder, [content + b"PK\6\7" + content[:16] + b"PK\5\6" + content]))
