"""Parameter files: read without running code, and written whole or not at all."""

import argparse
import pathlib
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from console import InputError, warn
from safe_io import atomic_path, sha256

from . import split_zip
from .dialects import to_torchvision

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
# What data-parallel, compiled and composed modules put before every key.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")


class Checkpoint(NamedTuple):
    """A state dict and where it came from.

    tensors: key -> tensor on the CPU, floating-point or not, in file order.
    container: top-level key under which it was found, "" for a plain state dict.
    """

    path: Path
    tensors: dict[str, Tensor]
    container: str

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape of the plain floating-point tensors: what `models.layers` works on."""
        return {k: tuple(v.shape) for k, v in self.tensors.items() if is_plain(v)}


def is_plain(x: Tensor) -> bool:
    """Whether `x` holds numbers that can be compared: floating-point, neither sparse nor nested."""
    # float4_e2m1fn_x2 packs two numbers into an element, and cannot be converted.
    return (
        x.is_floating_point()
        and x.layout == torch.strided
        and not x.is_nested
        and not str(x.dtype).endswith("_x2")
    )


def read(path: Path) -> Checkpoint:
    """Read the state dict in a file without running any code in it.

    Containers such as {"state_dict": ...} are opened and prefixes such as "module." taken off.
    Tensors of a zip-format file stay memory-mapped. Raises InputError, naming the file, for
    whatever is no state dict.
    """
    content = read_safetensors(path) if path.suffix == ".safetensors" else unpickle(path)
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
    """What torch.load reads from a file with `weights_only`: nearly any object without behaviour.

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
            # torch warns of what it refuses a moment later; one line has to do.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=can_map)
    except Exception as error:
        # Nearly any exception can come out of a file that is not a checkpoint (KeyError from a text
        # file, EOFError, RuntimeError, ...), so this one place catches them all.
        raise InputError(explain(error, path)) from error


def check_zip(path: Path) -> bool:
    """Whether the tensors of a zip-format file can be mapped: they are stored, not deflated.

    torch looks at no checksum, and maps whatever lies where a member's header says it starts. So
    the members around the tensors, which say what these are, are checked against their CRC-32, and
    every stored one must fill its place up to the next. Tensors themselves are not read here.
    Raises BadZipFile (or what else zipfile raises) for a damaged file.
    """
    layout, _ = split_zip.LOCAL
    stored = True
    with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        members = sorted(archive.infolist(), key=lambda member: member.header_offset)
        ends = [*(member.header_offset for member in members[1:]), archive.start_dir]
        for member, end in zip(members, ends, strict=True):
            # torch writes 0 where it was told to compute no checksum.
            member.CRC = member.CRC or None
            if "/data/" not in member.filename:
                archive.read(member)
            if member.compress_type != zipfile.ZIP_STORED:
                stored = False
                continue
            # The last two fields of a local header are the lengths of name and extra field, after
            # which the data starts. A descriptor of 16 or 24 bytes may follow (flag 8).
            file.seek(member.header_offset)
            *_, name, extra = layout.unpack(file.read(layout.size))
            at = member.header_offset + layout.size + name + extra + member.compress_size
            file.seek(at)
            if member.flag_bits & 8 and member.compress_size:
                fits = end - at in (16, 24) and file.read(4) == b"PK\7\x08"
            else:
                fits = at == end
            if not fits:
                raise zipfile.BadZipFile(f"{member.filename} has another size than recorded")
    return stored


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of the safetensors package: key -> tensor on the CPU.

    Raises InputError where the package is not installed, or the file is damaged.
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
    """One line for an exception of torch.load."""
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
    # A pickle may start with anything, so damage cannot be told from another protocol.
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
    """Classes without behaviour that training scripts store beside the weights."""
    paths = [pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath]
    # NumPy's two constructors, whose module NumPy 2 renamed; files name it either way.
    constructors = [np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]]
    cores = ("numpy.core.multiarray", "numpy._core.multiarray")
    return [
        argparse.Namespace,
        *paths,
        # Python 3.13 moved the classes; files name them either way.
        *((cls, f"pathlib._local.{cls.__name__}") for cls in paths),
        *((cls, f"pathlib.{cls.__name__}") for cls in paths),
        np.ndarray,
        np.dtype,
        *(getattr(np.dtypes, name) for name in np.dtypes.__all__),
        *((f, f"{core}.{f.__name__}") for f in constructors for core in cores),
    ]


def open_container(content: Mapping, path: Path) -> tuple[Mapping, str]:
    """The mapping that holds the parameters, and the key it was under ("" at the top level).

    Of several under CONTAINERS the first is taken, with a warning.
    """
    container = ""
    for _ in range(3):
        found = [k for k in CONTAINERS if holds_tensors(content.get(k))]
        if not found:
            break
        if len(found) > 1:
            warn(f"{path} holds {', '.join(found)}; using {found[0]!r}")
        content, container = content[found[0]], found[0]
    return content, container


def holds_tensors(value: Any, depth: int = 3) -> bool:
    """Whether `value` is a mapping with a tensor in it, directly or in known containers."""
    if not isinstance(value, Mapping) or not depth:
        return False
    if any(isinstance(v, Tensor) for v in value.values()):
        return True
    return any(holds_tensors(value.get(k), depth - 1) for k in CONTAINERS)


def strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off PREFIXES, in any order and nesting, while all floating-point tensors carry one."""
    while True:
        parameters = [k for k, v in tensors.items() if v.is_floating_point()]
        prefix = next(
            (p for p in PREFIXES if parameters and all(k.startswith(p) for k in parameters)), None
        )
        if prefix is None:
            return tensors
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}


def names(keys: Iterable) -> str:
    """The first keys as text for a message, "none" for none."""
    keys = [str(key) for key in keys]
    more = f", ... ({len(keys)} in all)" if len(keys) > MOST_NAMES else ""
    return ", ".join(keys[:MOST_NAMES]) + more or "none"


def write(path: Path, state_dict: Mapping[str, Tensor]) -> str:
    """Write a plain state dict (CPU, contiguous), whole or not at all; return its SHA-256.

    state_dict: key -> tensor of any shape, type and device. Raises InputError where it cannot be
    written, as on a full disk; a file that was there before is untouched then.
    """
    plain = {key: value.detach().cpu().contiguous() for key, value in state_dict.items()}
    with atomic_path(path) as temporary:
        save(temporary, plain)
        return sha256(temporary)


def save(path: Path, content: Any) -> None:
    """torch.save whose bytes depend on the content alone; raises OSError on a full disk."""
    # Given a path, torch writes the file's name into it, and reports a full disk as RuntimeError.
    with open(path, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # After a write that failed, torch misses those bytes and says only that.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
