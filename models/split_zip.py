"""Multi-part ZIP archives (X.z01, X.z02, ..., X.zip), joined into the one file they hold.

Info-ZIP's `zip -s` cuts an archive into such parts. Laid end to end they are an ordinary archive,
except that offsets count from the start of a part (PKWARE's APPNOTE.TXT 6.3.10, section 8.5).
"""

import bisect
import io
import itertools
import os
import shutil
import statistics
import struct
import zipfile
import zlib
from pathlib import Path

from console import InputError
from safe_io import atomic_path, check_output

BLOCK = 1 << 18  # bytes read, inflated and written at a time
MARKER = b"PK\7\x08"  # in front of the first of several parts
END = b"PK\5\6"  # signature of the end record, whose next field is the number of other parts
LONGEST_END = 22 + 0xFFFF  # bytes of that record and its comment
ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
# What zipfile and zlib raise about bytes that make no sense.
DAMAGE = zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError


def join(archive: Path, target: Path) -> None:
    """Write the one member of `archive` to `target`, whole or not at all.

    archive: X.zip, the last part, with X.z01, X.z02, ... beside it; or an ordinary ZIP file. The
    parts are only read, and memory does not grow with their size. Raises InputError where a part is
    missing or damaged, where the archive does not hold exactly one stored or deflated file with
    the suffix of `target`, or where `target` cannot be written.
    """
    target = check_output(target)
    parts = find_parts(archive)
    try:
        with io.BufferedReader(Joined(parts), BLOCK) as file, zipfile.ZipFile(file) as whole:
            members = whole.infolist()
            check_members(members, archive, target)
            if len(parts) > 1:
                # zipfile takes the offset for one into the whole; the member comes first in it.
                members[0].header_offset = len(MARKER)
            with (
                whole.open(members[0]) as source,
                atomic_path(target) as temporary,
                open(temporary, "wb") as output,
            ):
                # zipfile compares the CRC-32, and stops at the size that the directory says.
                shutil.copyfileobj(source, output, BLOCK)
                if output.tell() != members[0].file_size:
                    raise zipfile.BadZipFile("the member ends early")
    except DAMAGE as error:
        raise InputError(f"{archive} is damaged ({error}); {advice(parts)}") from error


def find_parts(archive: Path) -> list[Path]:
    """Paths of all parts in their order. Only X.zip, the last one, knows how many there are."""
    with Joined([archive]) as file:
        file.seek(max(file.ends[0] - LONGEST_END, 0))
        tail = file.read()
    end = tail[tail.rfind(END) :] if END in tail else b""
    if len(end) < 6:
        raise InputError(f"{archive} is not a ZIP archive, or is truncated; copy it again")
    (others,) = struct.unpack_from("<H", end, len(END))
    parts = []
    for number in range(1, others + 1):
        parts.append(archive.with_suffix(f".z{number:02d}"))
        if not os.path.lexists(parts[-1]):
            raise InputError(
                f"part {parts[-1].name} of {archive} is missing beside it; "
                f"copy all {others + 1} parts"
            )
    return [*parts, archive]


def check_members(members: list[zipfile.ZipInfo], archive: Path, target: Path) -> None:
    """Raise InputError unless the archive holds one file, which can be read and be `target`."""
    if len(members) != 1:
        raise InputError(
            f"{archive} holds {len(members)} members, not one checkpoint; unpack it by hand"
        )
    name, method, size = members[0].filename, members[0].compress_type, members[0].file_size
    free = shutil.disk_usage(target.parent).free
    if set(name) & set("/\\:") or not name.lower().endswith(target.suffix.lower()):
        problem = f"holds {name!r}, not a plain {target.suffix} file; check which archive this is"
    elif members[0].flag_bits & ENCRYPTED:
        problem = "is encrypted; unpack it by hand"
    elif method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = f"is not deflated (method {method}); unpack it by hand"
    elif size > free:
        problem = (
            f"cannot be joined: {target} needs {size / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are "
            "available on its disk; make room"
        )
    else:
        return
    raise InputError(f"{archive} {problem}")


def advice(parts: list[Path]) -> str:
    """What to do about damage; it names a part that is not as long as the others."""
    sizes = {part.name: os.path.getsize(part) for part in parts[:-1]}
    if not sizes:
        return "copy it again"
    usual = statistics.mode(sizes.values())
    odd = [f" ({name} has {n} bytes, not {usual})" for name, n in sizes.items() if n != usual]
    return f"copy all {len(parts)} parts of one archive again{''.join(odd[:1])}"


class Joined(io.RawIOBase):
    """The parts of an archive as one file for reading. Raises InputError where one is none."""

    def __init__(self, parts: list[Path]) -> None:
        for part in parts:
            if not os.path.isfile(part):
                raise InputError(f"{part} is missing or not a file; copy the archive again")
        self.parts = parts
        self.ends = list(itertools.accumulate(map(os.path.getsize, parts)))
        self.at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + (0, self.at, self.ends[-1])[whence]
        if at < 0:
            raise OSError("an offset lies before the start")  # as files do, and zipfile expects
        self.at = at
        return at

    def readinto(self, buffer: memoryview) -> int:
        number = bisect.bisect_right(self.ends, self.at)
        if number == len(self.parts):
            return 0
        try:
            with open(self.parts[number], "rb", buffering=0) as file:
                file.seek(self.at - self.ends[number], os.SEEK_END)
                count = file.readinto(buffer)
        except OSError as error:
            raise InputError(f"cannot read {self.parts[number]}: {error.strerror}") from error
        self.at += count
        return count
