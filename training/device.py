"""Where the network computes: device, precision, and what a GPU can fail of, in one line."""

import contextlib
import os
import re
from collections.abc import Iterator

import torch

from console import InputError, under_torchrun

from . import distributed


def choose_device(name: str, *, deterministic: bool = False) -> torch.device:
    """The device for `--device`, its settings made. Raises InputError for one that is not here.

    Under torchrun it is the GPU of this process, and the process group is joined.
    """
    if deterministic:
        # cuBLAS reads it when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and under_torchrun():
        name = f"cuda:{gpu_of_process()}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here: {reason}") from error
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = not deterministic
    distributed.start(device)
    return device


def gpu_of_process() -> int:
    """Number of the GPU of this process under torchrun; InputError where there is none for it."""
    number, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if gpus and number >= gpus:
        raise InputError(
            f"torchrun has started more processes than this machine has GPUs ({gpus}); give "
            f"--nproc_per_node {gpus}"
        )
    return number


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """Type of the autocast regions for `--amp`; None: no mixed precision."""
    if name == "auto" and device.type != "cuda":
        name = "off"
    if name == "auto":
        name = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def mixed_precision(
    device: torch.device, dtype: torch.dtype | None
) -> contextlib.AbstractContextManager:
    """The region that a network and its loss are computed in; dtype None: as they are."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextlib.contextmanager
def one_line_when_out_of_memory(advice: str) -> Iterator[None]:
    """Turn the exception of a GPU that has not enough memory into InputError with the advice."""
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(f"the GPU has not enough memory for a batch; {advice}") from error


@contextlib.contextmanager
def one_line_when_not_compiled(compiled: bool) -> Iterator[None]:
    """Turn whatever torch.compile or its code fails of into InputError; nothing without it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not compiled:
            raise
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"torch.compile failed here ({type(error).__name__}: {reason}); leave out --compile"
        ) from error


@contextlib.contextmanager
def one_line_when_not_deterministic() -> Iterator[None]:
    """Turn the exception of an operation that --deterministic does not allow into InputError."""
    try:
        yield
    except RuntimeError as error:
        found = re.search(r"(\S+) does not have a deterministic implementation", str(error))
        if not found:
            raise
        raise InputError(
            f"{found[1]} has no deterministic implementation on this device; leave out "
            "--deterministic, or take another --arch"
        ) from error
