"""Multi-part ZIP archives (X.z01, X.z02, ..., X.zip), joined into the one file they hold.

Info-ZIP's `zip -s` writes such archives, and Python's zipfile cannot read them. The layouts are
those of PKWARE's APPNOTE.TXT 6.3.10; numbers such as 4.3.16 in this file are its sections.
"""

import io
import os
import shutil
import statistics
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from console import InputError
from safe_io import atomic_path, check_output

BLOCK = 1 << 18  # bytes read, inflated and written at a time

# Records, each with its signature in front.
LOCAL = struct.Struct("<4s5H3L2H"), b"PK\3\4"  # 4.3.7 local file header
END64 = struct.Struct("<4sQ2H2L4Q"), b"PK\6\6"  # 4.3.14 ZIP64 end of central directory
LOCATOR = struct.Struct("<4sLQL"), b"PK\6\7"  # 4.3.15 where END64 is
END = struct.Struct("<4s4H2LH"), b"PK\5\6"  # 4.3.16 end of central directory, then a comment
LONGEST_END = LOCATOR[0].size + END[0].size + 0xFFFF
LONGEST_ENTRY = 46 + 3 * 0xFFFF  # 4.3.12 central directory header with name, extra and comment

ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13  # 4.4.4


def join(archive: Path, target: Path) -> None:
    """Write the one member of `archive` to `target`, whole or not at all.

    archive: X.zip, the last part, with X.z01, X.z02, ... beside it; or an ordinary ZIP file. The
    parts are only read, and memory does not grow with their size. Raises InputError where a part is
    missing or damaged, where the archive does not hold exactly one stored or deflated file with
    the suffix of `target`, or where `target` cannot be written.
    """
    target = check_output(target)
    parts = Archive(Path(archive))
    member = parts.member()
    check_member(member, parts.path, target)
    free = shutil.disk_usage(target.parent).free
    if member.file_size > free:
        raise InputError(
            f"cannot join {archive}: {target} needs {member.file_size / 1e6:,.1f} MB, and "
            f"{free / 1e6:,.1f} MB are available on its disk; make room"
        )
    size = crc = 0
    with atomic_path(target) as temporary, open(temporary, "wb") as file:
        for block in parts.content(member):
            size += len(block)
            # A ZIP bomb is not unfolded to its end.
            if size > member.file_size:
                break
            crc = zlib.crc32(block, crc)
            file.write(block)
        if (size, crc) != (member.file_size, member.CRC):
            raise parts.damaged()


def check_member(member: zipfile.ZipInfo, archive: Path, target: Path) -> None:
    """Raise InputError for a member that cannot be read or is not what `target` should be."""
    name = member.filename
    flavours = PurePosixPath, PureWindowsPath
    if name in ("", ".", "..") or any(flavour(name).name != name for flavour in flavours):
        problem = f"holds {name!r}, which is not a plain file name; unpack it by hand"
    elif not name.lower().endswith(target.suffix.lower()):
        problem = f"holds {name!r}, not a {target.suffix} file; check which archive this is"
    elif member.flag_bits & ENCRYPTED:
        problem = "is encrypted; unpack it by hand"
    elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = f"is not deflated (method {member.compress_type}); unpack it by hand"
    else:
        return
    raise InputError(f"{archive} {problem}")


class Archive:
    """The parts of an archive as one run of bytes; positions count from the start of the first.

    Raises InputError where X.zip is not an archive or another part is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts = [(path, file_size(path))]
        # Only X.zip knows how many parts there are. Its end record is never split (8.5.3).
        tail = self.read(max(self.parts[0][1] - LONGEST_END, 0), LONGEST_END)
        at = tail.rfind(END[1])
        if at < 0:
            raise InputError(f"{path} is not a ZIP archive, or is truncated; copy it again")
        others, *directory = self.unpack(END, tail[at:])[:-1]
        locator = tail[max(at - LOCATOR[0].size, 0) : at]
        end64 = None
        if locator.startswith(LOCATOR[1]):
            *end64, total = self.unpack(LOCATOR, locator)
            others = total - 1
        self.parts[:0] = [self.part(number, others + 1) for number in range(1, others + 1)]
        if end64:
            record = self.read(self.position(*end64), END64[0].size)
            directory = self.unpack(END64, record)[-5:]
        disk, _, self.count, self.directory_size, offset = directory
        self.directory = self.position(disk, offset)

    def part(self, number: int, total: int) -> tuple[Path, int]:
        """Path and size of a part (8.3.3: .z01 to .z99, then .z100), its letter in either case."""
        letters = "Zz" if self.path.suffix.isupper() else "zZ"
        paths = [self.path.with_suffix(f".{letter}{number:02d}") for letter in letters]
        for path in paths:
            if os.path.lexists(path):
                return path, file_size(path)
        raise InputError(
            f"part {paths[0].name} of {self.path} is missing beside it; copy all {total} parts"
        )

    def member(self) -> zipfile.ZipInfo:
        """The one entry of the central directory, `header_offset` made a position.

        Raises InputError unless there is exactly one.
        """
        if self.count != 1:
            raise InputError(
                f"{self.path} holds {self.count} members, not one checkpoint; unpack it by hand"
            )
        # zipfile reads the directory, ZIP64 fields included, where it is made to look like that of
        # a single file.
        entry = self.read(self.directory, min(self.directory_size, LONGEST_ENTRY))
        end = END[0].pack(END[1], 0, 0, 1, 1, len(entry), 0, 0)
        try:
            (member,) = zipfile.ZipFile(io.BytesIO(entry + end)).infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise self.damaged() from error
        member.header_offset = self.position(member.volume, member.header_offset)
        return member

    def content(self, member: zipfile.ZipInfo) -> Iterator[bytes]:
        """The bytes of a member, in blocks of at most BLOCK."""
        start = member.header_offset + LOCAL[0].size
        # Of the local header only the lengths of name and extra field count: its sizes and CRC are
        # zero where a data descriptor follows (4.3.9), and the directory has them.
        start += sum(self.unpack(LOCAL, self.read(member.header_offset, LOCAL[0].size))[-2:])
        blocks = self.blocks(start, member.compress_size)
        if member.compress_type == zipfile.ZIP_STORED:
            yield from blocks
            return
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            for block in blocks:
                while block:
                    yield inflater.decompress(block, BLOCK)
                    block = inflater.unconsumed_tail
                if inflater.eof:
                    return
            yield inflater.flush()  # what the last block's limit held back inside zlib
        except zlib.error as error:
            raise self.damaged() from error

    def position(self, disk: int, offset: int) -> int:
        """Where byte `offset` of part `disk` (from 0) is."""
        if disk >= len(self.parts):
            raise self.damaged()
        return sum(size for _, size in self.parts[:disk]) + offset

    def read(self, position: int, size: int) -> bytes:
        """The `size` bytes from `position` on, fewer where the archive ends before."""
        return b"".join(self.blocks(position, size))

    def blocks(self, position: int, size: int) -> Iterator[bytes]:
        """The same in blocks, with one part open at a time."""
        for path, part_size in self.parts:
            left = min(part_size - position, size)
            if left > 0:
                try:
                    with open(path, "rb") as file:
                        file.seek(position)
                        while block := file.read(min(left, BLOCK)):
                            yield block
                            left, size = left - len(block), size - len(block)
                except OSError as error:
                    raise InputError(f"cannot read {path}: {error.strerror}") from error
            position = max(position - part_size, 0)

    def unpack(self, record: tuple[struct.Struct, bytes], data: bytes) -> tuple:
        """The fields of a record after its signature."""
        layout, signature = record
        if len(data) < layout.size or not data.startswith(signature):
            raise self.damaged()
        return layout.unpack_from(data)[1:]

    def damaged(self) -> InputError:
        """The error to raise; it names a part that is not as long as the others."""
        *others, _ = self.parts
        if not others:
            return InputError(f"{self.path} is damaged; copy it again")
        usual = statistics.mode(size for _, size in others)
        odd = [f" ({p.name} has {s} bytes, not {usual})" for p, s in others if s != usual]
        return InputError(
            f"{self.path} is damaged, or its parts are of different archives{''.join(odd[:1])}; "
            f"copy all {len(self.parts)} parts again"
        )


def file_size(path: Path) -> int:
    """Bytes in a file. Raises InputError for anything else."""
    if not os.path.isfile(path):
        raise InputError(f"{path} is missing or not a file; copy the archive again")
    return os.path.getsize(path)
