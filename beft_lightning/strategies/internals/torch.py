"""Private names of torch."""

from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

#: Attributes of a module: its submodules, its buffers, and the names of the buffers that no checkpoint holds.
MODULES, BUFFERS, NOT_PERSISTENT = "_modules", "_buffers", "_non_persistent_buffers_set"
#: Stands in a parameter's name for each of FSDP's wrappers around it. Names in checkpoints do without.
FSDP_PREFIX = "_fsdp_wrapped_module."


def version(tensor: Tensor) -> int:
    """Return a number that grows whenever the tensor is changed in place.

    The alternative is a copy of all frozen weights.
    """
    return tensor._version


def persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that belong into a checkpoint, by name.

    Only ``state_dict()`` leaves out the others, and under FSDP it gathers all weights.
    """
    return {
        f"{prefix}{'.' if prefix else ''}{name}".replace(FSDP_PREFIX, ""): buffer
        for prefix, owner in module.named_modules()
        for name, buffer in owner.named_buffers(recurse=False)
        if name not in getattr(owner, NOT_PERSISTENT)
    }


def state_without(module: nn.Module, child: str) -> dict[str, Any]:
    """Return the attributes of a module as they are pickled, without one of its submodules.

    ``__getstate__`` of a parametrized module refuses, and to delete the submodule would change the module.
    """
    state = dict(vars(module))
    return {**state, MODULES: {name: value for name, value in state[MODULES].items() if name != child}}


def drop_iterator(loader: DataLoader[Any]) -> None:
    """Let a loader begin a new iterator: persistent workers belong to the last one, which may be in use already."""
    if getattr(loader, "_iterator", None) is not None:
        loader._iterator = None


def inner_schedulers(scheduler: Any) -> list[Any]:
    """Return the schedulers that a SequentialLR or a ChainedScheduler runs; none for any other.

    These alone remember the rates that they start from, and no public name leads to them.
    """
    return list(getattr(scheduler, "_schedulers", ()))
