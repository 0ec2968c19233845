"""Archives in several parts (X.z01, ..., X.zip), and what is in a folder."""

import random
import shutil
import struct
import zlib
from pathlib import Path

INFO_ZIP = shutil.which("zip")
# Deflates to about half, and so into several parts.
CONTENT = bytes(random.Random(0).choices(range(16), k=3000))
MARKER = b"PK\7\x08"


def make(
    content=CONTENT,
    part_size=None,
    *,
    names=("X.pth",),
    method=8,
    flags=0,
    descriptor=False,
    crc=None,
    size=None,
):
    """The parts of an archive, as Info-ZIP lays them out but cut anywhere, inside headers too.

    names: each holds `content`. crc, size: replace the true ones in the directory.
    """
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = deflater.compress(content) + deflater.flush() if method == 8 else content
    crc = zlib.crc32(content) if crc is None else crc
    size = len(content) if size is None else size
    flags |= 8 * descriptor
    body, directory = MARKER if part_size else b"", b""

    def place(position):
        return divmod(position, part_size) if part_size else (0, position)

    for name in map(str.encode, names):
        disk, offset = place(len(body))
        sums = (0, 0, 0) if descriptor else (crc, len(packed), size)
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 45, flags, method, 0, 33, *sums, len(name), 6)
        body += name + b"UT\2\0ab" + packed
        if descriptor:
            body += struct.pack("<4s3L", MARKER, crc, len(packed), size)
        directory += struct.pack(
            "<4s6H3L5H2L",
            *(b"PK\1\2", 45, 45, flags, method, 0, 33, crc, len(packed), size, len(name), 0),
            *(0, disk, 0, 0, offset),
        )
        directory += name
    start, count = place(len(body)), len(names)
    body += directory
    step = part_size or len(body) or 1
    parts = [body[at : at + step] for at in range(0, len(body), step)] or [b""]
    last = (len(parts) - 1, start[0], count, count, len(directory), start[1])
    parts[-1] += struct.pack("<4s4H2LH", b"PK\5\6", *last, 0)
    return parts


def store(folder, parts, name="X.zip"):
    """Write the parts; the path of the last one."""
    archive = Path(folder) / name
    for number, part in enumerate(parts[:-1], start=1):
        archive.with_suffix(f".z{number:02d}").write_bytes(part)
    archive.write_bytes(parts[-1])
    return archive


def contents(folder):
    """Name -> bytes of every file in a folder."""
    return {p.name: p.read_bytes() for p in Path(folder).iterdir() if p.is_file()}
