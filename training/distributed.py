"""Several processes under torchrun: the first one writes; sums and gradients are of all.

Without torchrun there is one process, and no function here changes a number.
"""

import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from console import InputError, SaidByFirst, under_torchrun


def start(device: torch.device) -> None:
    """Join the process group of torchrun, if there is one. device: of this process."""
    if not under_torchrun() or distributed.is_initialized():
        return
    cuda = device.type == "cuda"
    distributed.init_process_group(
        "nccl" if cuda else "gloo",
        # The others wait while the first one downloads or unpacks a data set.
        timeout=timedelta(hours=1),
        device_id=device if cuda else None,
    )


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
