"""Operations in which all processes of a run take part."""

import gc
from collections.abc import Mapping
from typing import Any

import torch.distributed as dist

from beft_lightning.errors import BeftError


def gather(value: Any) -> list[Any]:
    """The values of all processes, by rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def destroy_process_group() -> None:
    """Leave the group of processes, if this one is in any, while the interpreter still runs.

    A thread of gloo's that lets go of its last tensor while the interpreter ends aborts the process, all of whose work
    is done (https://github.com/pytorch/pytorch/pull/179291). The threads end with the group, and the group once nothing
    holds it: no wrapper of the model, which is why the trainer has to be out of scope, and no default argument (those
    of ``torch.distributed.nn`` are the group where it is imported later than that; Lightning imports it early). FSDP2's
    mesh and DeepSpeed's globals outlive it; there the threads have at least been idle for as long as this takes.

    Nothing is sent, so it does not matter whether the other processes are still there. What is under way is waited for,
    and fails if they are not.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def check_same(settings: Mapping[str, Any]) -> None:
    """Check that all processes have the same settings, so that they train the same thing and never wait in vain.

    Args:
        settings: What has to be the same in all processes, by name.

    Raises:
        BeftError: If something is not.
    """
    everywhere = gather(dict(settings))
    for rank, there in enumerate(everywhere):
        if different := [name for name in settings if there.get(name) != everywhere[0].get(name)]:
            name = different[0]
            raise BeftError(
                f"{name} is {everywhere[0].get(name)!r} in process 0 and {there.get(name)!r} in process {rank}: start "
                "all processes with the same command, configuration and data."
            )
