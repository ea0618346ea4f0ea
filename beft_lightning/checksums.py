"""Checksums of tensors and of what a checkpoint says about them; they find damage, not forgery."""

from collections.abc import Mapping
from typing import Any

import torch
import xxhash
from torch import Tensor

#: Values that are copied and hashed at once: few enough for the cache of a processor.
_CHUNK = 2**18


def tensor_checksum(tensor: Tensor) -> str:
    """Return the checksum of a tensor's bytes in the order of its indices; its shape and precision do not count."""
    state = xxhash.xxh3_128()
    _add_bytes(state, tensor)
    return state.hexdigest()


def checksum(value: Any) -> str:
    """Return the checksum of nested dictionaries, lists, tensors and plain values.

    Names, types, precisions, shapes and the order of entries count. Of an object of another type, only the type does.
    """
    state = xxhash.xxh3_128()
    _add(state, value)
    return state.hexdigest()


def _add(state: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        state.update(f"tensor {value.dtype} {tuple(value.shape)}\n".encode())
        if value.layout == torch.strided:
            _add_bytes(state, value)
    elif isinstance(value, Mapping):
        state.update(f"mapping {len(value)}\n".encode())
        for key, entry in value.items():
            _add(state, key)
            _add(state, entry)
    elif isinstance(value, list | tuple):
        state.update(f"sequence {len(value)}\n".encode())
        for entry in value:
            _add(state, entry)
    elif value is None or type(value) in (bool, int, float, str):
        state.update(f"{type(value).__name__} {value!r}\n".encode("utf-8", "surrogatepass"))
    else:
        state.update(f"{type(value).__name__}\n".encode())


def _add_bytes(state: Any, tensor: Tensor) -> None:
    for part in tensor.detach().flatten().split(_CHUNK):
        # A copy: a tensor that has been seen as an array cannot be resized any more, and FSDP resizes its weights.
        state.update(part.to("cpu", copy=True).contiguous().view(torch.uint8).numpy())
