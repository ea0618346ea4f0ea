"""The precision of the parameters that may be trained: fp32, whatever that of the frozen weights."""

from collections.abc import Collection

import torch
from torch import nn

from beft_lightning.bias.fused import is_bias

HALF = (torch.bfloat16, torch.float16)
_NORMS = (
    nn.LayerNorm,
    nn.GroupNorm,
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


def keep_fp32(module: nn.Module, head: Collection[str] = ()) -> list[str]:
    """Cast biases, norms with biases and the head to fp32, in place.

    A bf16 value loses updates below about 0.4 % of itself, silently. Frozen matrices keep their precision; under
    autocast they meet fp32 biases.

    Args:
        module: A model, or any module.
        head: Names of the head's parameters.

    Returns:
        The names of the parameters that were cast.
    """
    # Norms take one precision for weight, bias and running statistics.
    norms = {name: child for name, child in module.named_modules() if isinstance(child, _NORMS)}
    for buffer in (buffer for norm in norms.values() for buffer in norm.buffers()):
        if buffer.dtype in HALF:
            buffer.data = buffer.data.float()
    cast = []
    for name, parameter in module.named_parameters():
        trainable = is_bias(name) or name in head or name.rpartition(".")[0] in norms
        if trainable and parameter.dtype in HALF:
            parameter.data = parameter.data.float()
            cast.append(name)
    return cast


def half_dtype(module: nn.Module) -> torch.dtype | None:
    """Return the half precision of some of a module's parameters; ``None`` if none has one."""
    return next((parameter.dtype for parameter in module.parameters() if parameter.dtype in HALF), None)
