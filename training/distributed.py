"""Several processes under torchrun: the first one writes; sums and gradients are of all.

Without torchrun there is one process, and no function here changes a number.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from console import InputError, OthersLeft, SaidByFirst, under_torchrun

LOST = (
    "another process of this run was killed or has failed; the same command with --resume goes on "
    "from the last state"
)


def start(device: torch.device) -> None:
    """Join the process group of torchrun, if there is one. device: of this process.

    Raises InputError where the environment speaks of several processes that cannot be joined.
    """
    if not under_torchrun() or distributed.is_initialized():
        return
    number, processes = number_from("RANK"), number_from("WORLD_SIZE")
    if processes == 1:
        return
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing or number >= processes:
        lacks = f"without {' and '.join(missing)}" if missing else "with a RANK that is too large"
        raise InputError(
            f"RANK={number} and WORLD_SIZE={processes} speak of several processes, {lacks}; "
            "start them by torchrun, or unset RANK and WORLD_SIZE for a single one"
        )
    cuda = device.type == "cuda"
    try:
        distributed.init_process_group(
            "nccl" if cuda else "gloo",
            # The others wait while the first one downloads or unpacks a data set.
            timeout=timedelta(hours=1),
            device_id=device if cuda else None,
        )
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = str(error).partition("\n")[0]
        raise InputError(f"cannot join the other processes at {place}: {reason}") from error


def number_from(name: str) -> int:
    """A whole number from the environment. Raises InputError for anything else."""
    text = os.environ[name]
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{name} is {text!r} in the environment, and no number; unset it")
    return int(text)


def is_lost(error: BaseException) -> bool:
    """Whether an exception says that another process of the run is no longer there."""
    words = ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL", "Broken pipe")
    return (
        world_size() > 1
        and isinstance(error, RuntimeError)
        and (isinstance(error, distributed.DistError) or any(w in str(error) for w in words))
    )


@contextlib.contextmanager
def among_others() -> Iterator[None]:
    """Turn the failure of an exchange with a process that has ended into one line."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost(error):
            raise
        raise OthersLeft(LOST) from error


def stop() -> None:
    """Leave the process group."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def rank() -> int:
    """Number of this process; the one with 0 writes and prints."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with its gradients averaged over the processes.

    Statistics of BatchNorm stay those of each process, see `share_buffers`.
    """
    if world_size() == 1:
        return model
    ids = [device] if device.type == "cuda" else None
    with warnings.catch_warnings():
        # torch 2.14 has a new name for the option, which older versions lack.
        warnings.simplefilter("ignore", FutureWarning)
        return nn.parallel.DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)


def share_buffers(model: nn.Module) -> None:
    """Copy the first process's buffers to all, so that the network evaluated is the one saved."""
    if world_size() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, 0)


def on_first(function: Callable[[], Any]) -> Any:
    """Call `function` in the first process; return its result, or raise its InputError, in all."""
    if world_size() == 1:
        return function()
    outcome: list[Any] = [None, None]
    failure = None
    if rank() == 0:
        try:
            outcome[0] = function()
        except InputError as error:
            failure, outcome[1] = error, str(error)
    with among_others():
        distributed.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise failure or SaidByFirst(outcome[1])
    return outcome[0]


def sum_up(*numbers: Tensor) -> list[Tensor]:
    """Each number (a tensor of one element) summed over the processes; of truth values: any."""
    if world_size() == 1:
        return list(numbers)
    # In one message; float64 holds whole numbers up to 2^53.
    summed = torch.stack([number.double() for number in numbers])
    distributed.all_reduce(summed)
    return [s.to(number.dtype) for s, number in zip(summed, numbers, strict=True)]


def wait_for_all() -> None:
    """Return when every process has called it."""
    if world_size() > 1:
        distributed.barrier()


def union(names: list[str]) -> list[str]:
    """Sorted union of the names that the processes have."""
    if world_size() == 1:
        return names
    gathered: list = [None] * world_size()
    distributed.all_gather_object(gathered, names)
    return sorted({name for part in gathered for name in part})
