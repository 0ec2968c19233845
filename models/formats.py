"""Formats of parameter files: PyTorch's, safetensors, and files in several parts with an index."""

import argparse
import contextlib
import json
import logging
import os
import pathlib
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from console import InputError

# Local file header of a ZIP member; its last two fields are the lengths of name and extra field.
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
# Bytes that safetensors allows for its header.
LONGEST_HEADER = 100_000_000
DISTRIBUTED = (
    "distributed tensors, of which each process has a part; save a full state dict "
    "(torch.distributed.checkpoint.state_dict, full_state_dict=True)"
)

# Size, inode and time of the last change of a file.
State = tuple[int, int, int]


def state_of(path: Path) -> State:
    """Return what a file that is replaced or written to does not keep."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return status.st_size, status.st_ino, status.st_mtime_ns


def load(path: Path) -> tuple[Any, dict[Path, State], bool]:
    """Return the content of a file, the state of each file that holds it, whether order is kept.

    The states are those before reading. Safetensors and indexes keep no order of the tensors.

    The format is told by the first bytes, not by the name. Raises InputError for a file that cannot
    be read.
    """
    state = {path: state_of(path)}
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if start.lstrip().startswith(b"{"):
        content, parts = read_index(path)
        return content, state | parts, False
    if is_safetensors(path, start):
        return read_safetensors(path), state, False
    return unpickle(path), state, True


def is_safetensors(path: Path, start: bytes) -> bool:
    """Whether a file begins with the length of a JSON header and the header, as safetensors does.

    start: its first nine bytes. A damaged file is told by its name.
    """
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER:
        return True
    return path.suffix == ".safetensors" and not start.startswith((b"PK", b"\x80"))


def read_index(path: Path) -> tuple[dict[str, Any], dict[Path, State]]:
    """Return the content of all parts of a checkpoint with an index, and the states of the files.

    path: of the index.json that lists in which file of the same folder each tensor is. Raises
    InputError where a part or a tensor is missing.
    """
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        parts = [path.parent / name for name in dict.fromkeys(files.values())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a PyTorch checkpoint; as JSON it is no index of one (weight_map)"
        ) from error
    content, states = {}, {}
    for part in parts:
        if not os.path.isfile(part):
            raise InputError(f"{part} is missing, which {path} lists")
        if part == path or os.path.samefile(part, path):
            raise InputError(f"{path} lists itself as a part")
        tensors, state, _ = load(part)
        if not isinstance(tensors, dict):
            raise InputError(f"{part} holds a {type(tensors).__name__}, not a state dict")
        content |= tensors
        states |= state
    for key in files:
        if key not in content:
            raise InputError(f"{path} lists {key}, which {path.parent / files[key]} lacks")
    return content, states


def unpickle(path: Path) -> Any:
    """Return the content of a file as torch.load reads it with `weights_only`.

    Raises InputError for a file that cannot be read, and for every complaint of torch.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not start:
        raise InputError(f"{path} is empty; copy or write it again")
    try:
        can_map = start == b"PK\x03\x04" and check_zip(path)
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.serialization.safe_globals(harmless_globals()))
            # torch warns before it refuses; the error says enough.
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.callback(logging.disable, logging.root.manager.disable)
            logging.disable()
            source = path
            if path.suffix == ".safetensors":  # torch goes by that name
                source, can_map = stack.enter_context(open(path, "rb")), False
            return torch.load(source, map_location="cpu", weights_only=True, mmap=can_map)
    except Exception as error:
        # A file that is not a checkpoint can raise nearly anything (KeyError for a text file,
        # EOFError, RuntimeError, ...), so this one place catches every exception.
        raise InputError(explain(error, path)) from error


def check_zip(path: Path) -> bool:
    """Whether the tensors of a zip-format file can be mapped: they are stored, not deflated.

    torch checks no checksum, and maps the bytes at the offset in a member's header, whatever they
    are. So the members that describe the tensors are checked against their CRC-32, and every stored
    member has to end where the next one starts. The tensors themselves are not read here. Raises
    BadZipFile (or another exception of zipfile) for a damaged file.
    """
    stored = True
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
        ends = [*(member.header_offset for member in members[1:]), archive.start_dir]
        for member, end in zip(members, ends, strict=True):
            # torch writes 0 when checksums are turned off.
            member.CRC = member.CRC or None
            if "/data/" not in member.filename:
                archive.read(member)
            if member.compress_type != zipfile.ZIP_STORED:
                stored = False
                continue
            # The data follow the header, its name and extra field, and end with the next member,
            # or with a descriptor of 16 or 24 bytes before it (flag 8).
            file.seek(member.header_offset)
            *_, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size))
            at = member.header_offset + LOCAL_HEADER.size + name + extra + member.compress_size
            file.seek(at)
            if member.flag_bits & 8 and member.compress_size:
                fits = end - at in (16, 24) and file.read(4) == b"PK\7\x08"
            else:
                fits = at == end
            if not fits:
                raise zipfile.BadZipFile(f"{member.filename} has another size than recorded")
    return stored


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file: key -> tensor on the CPU.

    Raises InputError if the package is not installed or the file is damaged.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(
            f"{path} needs the package safetensors: pip install safetensors"
        ) from error
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is no safetensors file, or is damaged ({error})") from error


def explain(error: Exception, path: Path) -> str:
    """Return the message for an exception of torch.load."""
    if isinstance(error, UnicodeEncodeError):
        return f"the name of {path} is not valid UTF-8, which torch cannot open; rename it"
    text = str(error)
    needed = re.search(
        r"(?:Unsupported (?:global|class|operand)\D*?|GLOBAL )([\w.]+\.[\w.]+)", text
    )
    if "DTensor" in text or (needed and "distributed" in needed[1]):
        return f"{path} holds {DISTRIBUTED}"
    if needed:
        return (
            f"{path} needs the Python class {needed[1]} to load, which could run code, so it is "
            "refused; save the model's state_dict() instead"
        )
    if "TorchScript" in text:
        return f"{path} is a TorchScript archive, which holds code; save its state_dict() instead"
    # A pickle has no signature, so damage looks like an unknown protocol.
    protocol = (
        ", or was saved with a pickle protocol that torch's safe reader does not know"
        if "Unsupported operand" in text
        else ""
    )
    return (
        f"{path} is not a PyTorch checkpoint, or is damaged or truncated{protocol} "
        f"({type(error).__name__})"
    )


def harmless_globals() -> list:
    """Return the classes without behaviour that training scripts store with the weights."""
    paths = [pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath]
    # NumPy's two constructors; NumPy 2 renamed their module, and files use both names.
    constructors = [np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]]
    cores = ("numpy.core.multiarray", "numpy._core.multiarray")
    return [
        argparse.Namespace,
        *paths,
        # Python 3.13 moved these classes, and files use both names.
        *((cls, f"pathlib._local.{cls.__name__}") for cls in paths),
        *((cls, f"pathlib.{cls.__name__}") for cls in paths),
        np.ndarray,
        np.dtype,
        *(getattr(np.dtypes, name) for name in np.dtypes.__all__),
        *((f, f"{core}.{f.__name__}") for f in constructors for core in cores),
    ]
