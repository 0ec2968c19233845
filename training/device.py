"""Device and precision of the computation, and one line for what a device cannot do."""

import contextlib
import os
import re
from collections.abc import Iterator

import torch

from console import InputError, under_torchrun

from . import distributed

# To explain_errors, for a batch that training cannot hold.
BATCH_ADVICE = "compute it in parts with --accumulate 2 (or more), or give a smaller --batch_size"


def choose_device(name: str, *, deterministic: bool = False) -> torch.device:
    """Set up and return the device of `--device`. Raises InputError for one that is not here.

    Under torchrun it is the GPU of this process, and the process group is joined.
    """
    if deterministic:
        # cuBLAS reads the variable at its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and under_torchrun():
        name = f"cuda:{gpu_of_process()}"
    try:
        device = torch.device(name)
        # As used in training: meta has no values, and others lack half of what torch can do.
        torch.ones(2, device=device).sum().item()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"--device {name} cannot be used here: {reason}; give cpu, cuda or auto"
        ) from error
    if device.type == "cuda":
        if device.index is not None:
            torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = not deterministic
    distributed.start(device)
    return device


def gpu_of_process() -> int:
    """Number of the GPU of this process under torchrun. Raises InputError if there are too few."""
    number, gpus = distributed.number_from("LOCAL_RANK"), torch.cuda.device_count()
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
    """The autocast region for a network and its loss; dtype None: without effect."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


@contextlib.contextmanager
def explain_errors(advice: str, *, compiled: bool = False) -> Iterator[None]:
    """Turn the exceptions of a device that cannot do what the options ask into InputError.

    advice: on a GPU whose memory is full. compiled: the network is compiled, and every other
    exception is put down to that.
    """
    try:
        with distributed.among_others():
            yield
    except InputError:
        raise
    except Exception as error:
        explanation = explain(error, advice, compiled)
        if explanation is None:
            raise
        raise InputError(explanation) from error


def explain(error: Exception, advice: str, compiled: bool) -> str | None:
    """One line about an exception of torch, None for one that is no matter of options."""
    text = str(error)
    operation = re.search(r"(\S+) does not have a deterministic implementation", text)
    if isinstance(error, RuntimeError) and operation:
        return (
            f"{operation[1]} has no deterministic implementation on this device; leave out "
            "--deterministic, or take another --arch"
        )
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return f"the GPU has not enough memory for a batch; {advice}"
    if compiled:
        reason = (text.splitlines() or [""])[0]
        return f"torch.compile failed here ({type(error).__name__}: {reason}); leave out --compile"
    return None
