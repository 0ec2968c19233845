"""Checkpoint files: read without running any code in them, written whole or not at all."""

import argparse
import pathlib
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from console import InputError, warn
from safe_io import atomic_path, sha256

from .dialects import to_torchvision
from .layers import Partition, partition

# Where training scripts put the state dict, in the order of preference.
CONTAINERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "params",
    "module",
    "teacher",
    "student",
    "model_ema",
    "ema",
)
# Keys that a message lists at most.
MOST_NAMES = 8
# Prefixes that data-parallel, compiled and composed modules add to every key.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
# Local file header of a ZIP member; its last two fields are the lengths of name and extra field.
LOCAL_HEADER = struct.Struct("<4s5H3L2H")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A state dict and where it came from.

    tensors: key -> tensor on the CPU, floating-point or not, in file order.
    container: top-level key that held it, "" for a plain state dict.
    """

    path: Path
    tensors: dict[str, Tensor]
    container: str

    @cached_property
    def partition(self) -> Partition:
        """The layers, from keys and shapes of the floating-point tensors."""
        return partition({k: tuple(v.shape) for k, v in self.tensors.items() if is_plain(v)})


def is_plain(x: Tensor) -> bool:
    """Whether `x` can be compared element by element: floating-point, neither sparse nor nested."""
    # float4_e2m1fn_x2 packs two numbers into an element, and cannot be converted.
    return (
        x.is_floating_point()
        and x.layout == torch.strided
        and not x.is_nested
        and not str(x.dtype).endswith("_x2")
    )


def read(path: Path) -> Checkpoint:
    """Read the state dict in a file without running any code in it.

    Containers such as {"state_dict": ...} are opened, prefixes such as "module." removed. Tensors
    of a zip-format file stay memory-mapped. Raises InputError, naming the file, for anything that
    is not a state dict.
    """
    content = read_safetensors(path) if path.suffix == ".safetensors" else unpickle(path)
    return of_content(content, path)


def of_mapping(theta: Checkpoint | Mapping[str, Tensor], name: str) -> Checkpoint:
    """A state dict in memory as a checkpoint; one that is a checkpoint already stays itself.

    name: what messages call it. Raises InputError as `read` does.
    """
    return theta if isinstance(theta, Checkpoint) else of_content(theta, Path(name))


def of_content(content: Any, path: Path) -> Checkpoint:
    """The state dict in the content of a file. Raises InputError where there is none."""
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not a state dict")
    content, container = open_container(content, path)
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensors; its top-level keys are: {names(content)}")
    if any(v.is_meta for v in tensors.values()):
        raise InputError(f"{path} holds the shapes of tensors without their values")
    return Checkpoint(path, to_torchvision(strip_prefixes(tensors)), container)


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
        with (
            torch.serialization.safe_globals(harmless_globals()),
            warnings.catch_warnings(),
        ):
            # torch warns before it refuses; the error says enough.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=can_map)
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


def open_container(content: Mapping, path: Path) -> tuple[Mapping, str]:
    """Return the mapping that holds the parameters, and its key ("" for the top level itself).

    Of several keys of CONTAINERS the first is used, with a warning.
    """
    container = ""
    for _ in range(3):
        keys = [k for k in CONTAINERS if holds_tensors(content.get(k))]
        if not keys:
            break
        if len(keys) > 1:
            warn(f"{path} holds {', '.join(keys)}; using {keys[0]!r}")
        content, container = content[keys[0]], keys[0]
    return content, container


def holds_tensors(value: Any, depth: int = 3) -> bool:
    """Whether `value` is a mapping with a tensor in it, directly or in known containers."""
    if not isinstance(value, Mapping) or not depth:
        return False
    if any(isinstance(v, Tensor) for v in value.values()):
        return True
    return any(holds_tensors(value.get(k), depth - 1) for k in CONTAINERS)


def strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove PREFIXES, in any order and nesting, as long as all floating-point keys share one."""
    while True:
        parameters = [k for k, v in tensors.items() if v.is_floating_point()]
        prefix = next(
            (p for p in PREFIXES if parameters and all(k.startswith(p) for k in parameters)), None
        )
        if prefix is None:
            return tensors
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}


def names(keys: Iterable) -> str:
    """Return the first keys as text for a message, "none" if there are none."""
    keys = [str(key) for key in keys]
    more = f", ... ({len(keys)} in all)" if len(keys) > MOST_NAMES else ""
    return ", ".join(keys[:MOST_NAMES]) + more or "none"


def write(path: Path, state_dict: Mapping[str, Tensor]) -> str:
    """Write a plain state dict (CPU, contiguous), whole or not at all; return its SHA-256.

    state_dict: key -> tensor of any shape, type and device. Raises InputError if writing fails, as
    on a full disk; an older file of that name is then untouched.
    """
    plain = {key: value.detach().cpu().contiguous() for key, value in state_dict.items()}
    with atomic_path(path) as temporary:
        save(temporary, plain)
        return sha256(temporary)


def save(path: Path, content: Any) -> None:
    """Save as torch.save does, with bytes that depend on the content alone.

    Raises OSError on a full disk.
    """
    # Given a path, torch would write the file's name into the archive.
    with open(path, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch reports a failed write as bytes that are missing.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
