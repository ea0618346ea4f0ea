"""State that modules, samplers and datasets keep in ordinary attributes: a snapshot of it, and its restoration."""

import io
import random
import types
from collections import deque
from collections.abc import Callable
from enum import Enum
from itertools import islice
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from beft_lightning.strategies.internals.torch import BUFFERS, MODULES, NOT_PERSISTENT

#: Larger arrays of a dataset are taken for its examples, and left alone.
_LARGEST_ARRAY = 2**20  # bytes
#: Of containers with more elements, only which elements they hold is restored.
_LARGEST_CONTAINER = 10_000
#: An object with more containers and objects in it is not taken for a plain one.
_LARGEST_OBJECT = 1_000

_DATA = (DataLoader, CombinedLoader, Dataset, Sampler, LightningDataModule)
_CONTAINERS = (list, dict, set, deque, bytearray)
_ARRAYS = (Tensor, np.ndarray)
_GENERATORS = (random.Random, torch.Generator, np.random.RandomState, np.random.Generator, np.random.BitGenerator)
#: Values without a state of their own: it is enough to set the attribute again.
_CONSTANTS = (
    *(int, float, complex, str, bytes, frozenset, range, slice, types.NoneType, np.generic, Enum, PurePath),
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType),
    *(torch.dtype, torch.device, torch.layout),
)
#: Attributes that every module has. Hooks and parameters are not plain state.
_MACHINERY = vars(LightningModule()).keys() - {"training", BUFFERS, MODULES, NOT_PERSISTENT}
_OWN_STATE = vars(nn.Module()).keys() - _MACHINERY

_Restore = Callable[[], object]


class Snapshot:
    """The plain state of modules and of the sources of their data, at the moment of its making.

    Attributes are set again; those that have appeared since are deleted. The content of lists, dictionaries, sets and
    deques, the values of tensors and arrays, the state of random generators and the position of files are restored in
    place. Followed are submodules, also those in plain containers, samplers and datasets wherever they are attributes,
    and objects whose attributes are all plain, such as a meter of averages.

    Containers in modules are restored with what they contain, those of datasets only in which elements they hold.
    Parameters of modules and large arrays of datasets are left alone.

    """

    def __init__(self) -> None:
        #: All modules that were found.
        self.modules: list[nn.Module] = []
        self._restores: list[_Restore] = []
        self._seen: dict[int, object] = {}

    def add(self, *owners: object) -> None:
        """Take the state of objects.

        Args:
            owners: Modules, data modules, loaders, samplers, datasets, or anything else that has attributes.
        """
        for owner in owners:
            if isinstance(owner, nn.Module):
                self._seen.update((id(parameter), parameter) for parameter in owner.parameters())
            if isinstance(owner, (nn.Module, *_DATA, *_CONTAINERS, *_CONSTANTS)) or not hasattr(owner, "__dict__"):
                self._visit(owner, whole=False)
            elif id(owner) not in self._seen:
                self._take_attributes(owner, whole=False)

    def restore(self) -> None:
        """Restore the state."""
        with torch.no_grad():
            for restore in self._restores:
                restore()

    def _visit(self, value: Any, *, whole: bool, objects: bool = True) -> None:
        """Take the state of a value.

        Args:
            value: The value of an attribute, or an element of a container.
            whole: Take also what is inside of containers, and large arrays.
            objects: Take the attributes of plain objects, too.
        """
        if isinstance(value, _CONSTANTS) or id(value) in self._seen:
            return
        if isinstance(value, nn.Module):
            self._take_module(value)
        elif isinstance(value, _DATA):
            self._take_attributes(value, whole=False)
        elif isinstance(value, (*_CONTAINERS, tuple)):
            self._take_container(value, whole=whole, objects=objects)
        elif isinstance(value, _GENERATORS):
            self._take(value, _generator(value))
        elif isinstance(value, io.IOBase):
            self._take(value, _file(value))
        elif isinstance(value, _ARRAYS):
            if whole or value.nbytes <= _LARGEST_ARRAY:
                self._take(value, _array(value))
        elif objects and _is_plain(value, set()):
            self._take_attributes(value, whole=whole)

    def _take(self, value: object, restore: _Restore) -> None:
        self._seen[id(value)] = value
        self._restores.append(restore)

    def _take_module(self, module: nn.Module) -> None:
        self.modules.append(module)
        # Modules of torch have no other state, except FSDP's wrappers, whose state is bound to the parameters.
        wanted = _OWN_STATE.__contains__ if _is_of_torch(module) else _is_not_machinery
        # Objects of other modules may be bound to parameters, too, as those of bitsandbytes are.
        self._take_attributes(module, wanted, whole=True, objects=isinstance(module, LightningModule))

    def _take_attributes(
        self, owner: object, wanted: Callable[[str], bool] = bool, *, whole: bool, objects: bool = True
    ) -> None:
        state = vars(owner)
        before = {name: state[name] for name in filter(wanted, state)}

        def restore() -> None:
            for name in set(filter(wanted, state)) - before.keys():
                del state[name]
            state.update(before)

        self._take(owner, restore)
        # Submodules come last, as they may share a container with their owner, where objects are not looked at.
        for name in sorted(before, key=MODULES.__eq__):
            self._visit(before[name], whole=whole, objects=objects)

    def _take_container(self, value: Any, *, whole: bool, objects: bool) -> None:
        self._take(value, (lambda: None) if isinstance(value, tuple) else _container(value))
        elements = value.values() if isinstance(value, dict) else value
        if whole and len(value) <= _LARGEST_CONTAINER:
            for element in elements:
                self._visit(element, whole=True, objects=objects)
        else:
            for element in islice(elements, _LARGEST_CONTAINER):
                if isinstance(element, (*_DATA, *_GENERATORS)):
                    self._visit(element, whole=False)


def _is_not_machinery(name: str) -> bool:
    return name not in _MACHINERY


def _is_of_torch(module: nn.Module) -> bool:
    # FSDP2 makes a class of its own for each module, a subclass of the module's.
    return all(cls.__module__.partition(".")[0] in ("torch", "builtins", "typing") for cls in type(module).__mro__)


def _is_plain(value: Any, seen: set[int]) -> bool:
    """Return whether a value consists of plain state only: no locks, threads, connections, or objects of C."""
    if id(value) in seen or isinstance(value, (*_CONSTANTS, *_ARRAYS, *_GENERATORS, *_DATA, nn.Module)):
        return True
    seen.add(id(value))
    if len(seen) > _LARGEST_OBJECT:
        return False
    if isinstance(value, (*_CONTAINERS, tuple)):
        elements = value.values() if isinstance(value, dict) else value
        return all(_is_plain(element, seen) for element in islice(elements, _LARGEST_CONTAINER))
    if isinstance(value, (Trainer, Fabric, io.IOBase)) or not hasattr(value, "__dict__"):
        return False
    return all(_is_plain(attribute, seen) for attribute in vars(value).values())


def _container(value: Any) -> _Restore:
    content = dict(value) if isinstance(value, dict) else list(value)

    def restore() -> None:
        value.clear()
        (value.update if isinstance(value, dict | set) else value.extend)(content)

    return restore


def _array(value: Any) -> _Restore:
    if isinstance(value, np.ndarray):
        content = value.copy()

        def restore() -> None:
            if value.flags.writeable:
                value[...] = content

        return restore
    if value.is_meta or value.layout is not torch.strided:
        return lambda: None
    saved = value.detach().clone()

    def restore_tensor() -> None:
        if value.shape != saved.shape:
            value.data = saved
        # Not in any case: a tensor that was expanded cannot be written to.
        elif not torch.equal(value, saved):
            value.detach().copy_(saved)

    return restore_tensor


def _generator(value: Any) -> _Restore:
    if isinstance(value, random.SystemRandom):
        return lambda: None
    if isinstance(value, random.Random):
        python_state = value.getstate()
        return lambda: value.setstate(python_state)
    if isinstance(value, np.random.Generator | np.random.BitGenerator):
        bits = value.bit_generator if isinstance(value, np.random.Generator) else value
        bit_state = bits.state
        return lambda: setattr(bits, "state", bit_state)
    state = value.get_state()
    return lambda: value.set_state(state)


def _file(value: io.IOBase) -> _Restore:
    try:
        position = value.tell()
    except (OSError, ValueError):  # a stream, or closed
        return lambda: None
    return lambda: None if value.closed else value.seek(position)
