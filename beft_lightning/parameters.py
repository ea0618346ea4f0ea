"""Parameters that may be sharded over processes."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from beft_lightning.strategies.internals.deepspeed import is_partitioned, partitioned_shape
from beft_lightning.strategies.internals.torch import FSDP_PREFIX


def named_parameters(module: nn.Module, *, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield ``module.named_parameters()`` under their names without FSDP's wrappers."""
    for name, parameter in module.named_parameters(remove_duplicate=remove_duplicate):
        yield clean_name(name), parameter


def clean_name(name: str) -> str:
    """Return a parameter's name without FSDP's wrappers."""
    return name.replace(FSDP_PREFIX, "")


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor of a shard. A collective operation: all processes must call it together."""
    if isinstance(tensor, DTensor):
        full: Tensor = tensor.detach().full_tensor()  # type: ignore[attr-defined]
        return full
    if tensor.shape != full_shape(tensor):
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().clone()
    return tensor.detach()


def full_shape(tensor: Tensor) -> torch.Size:
    """Return the shape of the full tensor of a shard."""
    return torch.Size(partitioned_shape(tensor)) if is_partitioned(tensor) else tensor.shape


def numel(parameter: nn.Parameter) -> int:
    """Return the number of values of the full parameter."""
    return full_shape(parameter).numel()
