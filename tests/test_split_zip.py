"""Split archives: joined to the exact file, or one line that says what is wrong, and no debris."""

import os
import random
import re
import shutil
import subprocess
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from archives import CONTENT, INFO_ZIP, contents, make, store
from hypothesis import given
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
    return str(caught.value)


# Cuts from one byte past the marker on, so that each header lies across parts somewhere.
@pytest.mark.parametrize("part_size", [None, 5, 16, 47, 100, 1000, 10**6])
@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("descriptor", [False, True])
def test_round_trip(tmp_path, part_size, method, descriptor):
    content = CONTENT[:600]
    parts = make(content, part_size, method=method, descriptor=descriptor)
    assert joined(store(tmp_path, parts)) == content


# Zeros take few bits, so zlib has read all input while output beyond a full block is still to come.
@pytest.mark.parametrize("size", [0, 1, split_zip.BLOCK - 1, split_zip.BLOCK, 3 * split_zip.BLOCK])
def test_contents_that_end_near_a_block(tmp_path, size):
    assert joined(store(tmp_path, make(bytes(size), 50))) == bytes(size)


def test_more_than_99_parts(tmp_path):
    archive = store(tmp_path, make(method=0, part_size=20))
    assert (tmp_path / "X.z150").exists()
    assert joined(archive) == CONTENT
    (tmp_path / "X.z100").unlink()
    assert "part X.z100 of" in refusal(archive)


def test_single_file_of_pythons_zipfile(tmp_path):
    with zipfile.ZipFile(tmp_path / "X.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("X.pth", CONTENT)
    # Parts of another archive that lie beside a whole one do not matter.
    (tmp_path / "X.z01").write_bytes(b"stale")
    assert joined(tmp_path / "X.zip") == CONTENT


@pytest.mark.skipif(INFO_ZIP is None, reason="Info-ZIP's zip is not installed")
@pytest.mark.parametrize("options", ["-s 64k", "-s 100k -0", "-fz", "-fd", ""])
def test_info_zip(tmp_path, options):
    content = random.Random(0).randbytes(300_000) + bytes(300_000)
    (tmp_path / "X.pth").write_bytes(content)
    subprocess.run([INFO_ZIP, "-q", *options.split(), "X.zip", "X.pth"], cwd=tmp_path, check=True)
    assert (tmp_path / "X.z04").exists() == ("-s" in options)
    assert joined(tmp_path / "X.zip") == content


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


@pytest.mark.parametrize("make_part", [Path.mkdir, os.mkfifo, lambda p: p.symlink_to("nowhere")])
def test_part_that_is_no_file(tmp_path, make_part):
    archive = store(tmp_path, make(part_size=300))
    (tmp_path / "X.z02").unlink()
    make_part(tmp_path / "X.z02")
    assert "X.z02 is missing or not a file" in refusal(archive)


@pytest.mark.parametrize("method", [0, 8])
def test_damaged_and_foreign_parts(tmp_path, method):
    parts = make(part_size=300, method=method)
    archive = store(tmp_path, parts)
    part = tmp_path / "X.z02"
    damaged = rf"{archive} is damaged \(.+\); copy all {len(parts)} parts of one archive again"

    other = make(CONTENT[::-1], part_size=300, method=method)
    for content, odd in (
        (other[1], ""),
        (parts[2], ""),
        (parts[1][:-9], r" \(X.z02 has 291 bytes, not 300\)"),
        (parts[1] + b"more", r" \(X.z02 has 304 bytes, not 300\)"),
    ):
        part.write_bytes(content)
        assert re.fullmatch(damaged + odd, refusal(archive))


def test_damaged_single_file(tmp_path):
    message = refusal(store(tmp_path, make(crc=1)))
    assert message == f"{tmp_path}/X.zip is damaged (Bad CRC-32 for file 'X.pth'); copy it again"


@pytest.mark.parametrize("part_size", [None, 60])
@pytest.mark.parametrize("names", [[], ["X.pth", "Y.pth"], ["X.pth"] * 3])
def test_number_of_members(tmp_path, part_size, names):
    message = refusal(store(tmp_path, make(b"a", part_size, names=names)))
    assert f"X.zip holds {len(names)} members, not one checkpoint" in message


@pytest.mark.parametrize("name", ["../X.pth", "a/X.pth", "..\\X.pth", "", "X.txt", "Xpth"])
def test_member_of_another_name_or_kind(tmp_path, name):
    message = refusal(store(tmp_path, make(names=[name])))
    assert f"holds {name!r}, not a plain .pth file; check which archive this is" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"flags": flag}, "is encrypted; unpack it") for flag in (1 << 0, 1 << 6, 1 << 13)),
        *(({"method": m}, f"is not deflated (method {m}); unpack it") for m in (1, 12, 14, 99)),
    ],
)
def test_what_cannot_be_unpacked(options, message, tmp_path):
    assert f"X.zip {message}" in refusal(store(tmp_path, make(part_size=300, **options)))


@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("size", [0, len(CONTENT) - 1, len(CONTENT) + 1])
def test_wrong_size_in_the_directory(tmp_path, method, size):
    assert "damaged" in refusal(store(tmp_path, make(part_size=300, method=method, size=size)))


def test_disk_without_room(tmp_path, monkeypatch):
    archive = store(tmp_path, make(part_size=300, size=94_438_447))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2_500_000))
    assert "out.pth needs 94.4 MB, and 2.5 MB are available" in refusal(archive)


# Zeros deflate a thousandfold, so one block of input is far more than one of output. The third one
# is a bomb: a thousand bytes by its directory.
@pytest.mark.parametrize(("method", "size"), [(0, None), (8, None), (8, 1000)])
def test_memory_is_bounded(tmp_path, method, size):
    content = bytes(60 << 20)
    archive = store(
        tmp_path, make(content, 10 << 20 if method == 0 else 9999, method=method, size=size)
    )
    tracemalloc.start()
    try:
        if size is None:
            split_zip.join(archive, tmp_path / "X.pth")
        else:
            assert "damaged" in refusal(archive)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    assert size or (tmp_path / "X.pth").read_bytes() == content


VARIANTS = [
    make(CONTENT[:200], part_size, method=method, descriptor=method == 8)
    for part_size in (None, 60, 150)
    for method in (0, 8)
]


@given(st.sampled_from(VARIANTS), st.integers(0), st.integers(1, 255), st.booleans())
def test_flipped_or_cut_bytes_are_an_error_or_harmless(variant, where, bits, cut):
    parts = list(variant)
    # Over all bytes of all parts: the short last part holds most of the structure.
    at, number = where % sum(map(len, parts)), 0
    while at >= len(parts[number]):
        at, number = at - len(parts[number]), number + 1
    part = parts[number]
    parts[number] = part[:at] + (b"" if cut else bytes([part[at] ^ bits]) + part[at + 1 :])
    with tempfile.TemporaryDirectory() as folder:
        archive = store(folder, parts)
        before = contents(folder)
        try:
            split_zip.join(archive, Path(folder) / "out.pth")
        except InputError:
            assert contents(folder) == before
        else:
            assert contents(folder) == {**before, "out.pth": CONTENT[:200]}


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        assert re.search("not a ZIP archive|damaged", refusal(store(folder, [content])))
        refusal(store(folder, [content + b"PK\5\6" + content]))
