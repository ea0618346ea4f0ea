"""Parametrized tensors: their names, and modules that can be pickled."""

import copyreg
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from beft_lightning.strategies.internals.torch import state_without

#: Part of the name of every parameter of a parametrized tensor.
MARK = ".parametrizations."
#: Name of the submodule that holds the parametrizations of a module.
_LISTS = "parametrizations"


def plain_name(name: str) -> str:
    """Return the name of the tensor that a parameter is, or is a part of.

    >>> plain_name("layer.3.query.parametrizations.bias.original0"), plain_name("layer.3.query.bias")
    ('layer.3.query.bias', 'layer.3.query.bias')
    """
    path, mark, part = name.partition(MARK)
    return f"{path}.{part.partition('.')[0]}" if mark else name


def parametrize_tensor(owner: nn.Module, name: str, parametrization: nn.Module, *, unsafe: bool = False) -> None:
    """Compute ``owner.name`` from other parameters; see :func:`torch.nn.utils.parametrize.register_parametrization`.

    torch gives each parametrized module a class of its own, which refuses to be pickled since it cannot be imported.
    Pickled with its original class, the module can be parametrized again when it is loaded.

    Args:
        owner: The module that has the tensor.
        name: The tensor's name.
        parametrization: Computes the tensor.
        unsafe: Whether to skip torch's checks, which compute the tensor once.
    """
    _part_from_copies(owner)
    parametrize.register_parametrization(owner, name, parametrization, unsafe=unsafe)
    copyreg.pickle(type(owner), _reduce)


def _part_from_copies(owner: nn.Module) -> None:
    """Give a parametrized module a class of its own: a deep copy shares the one whose properties torch changes."""
    if parametrize.is_parametrized(owner):
        shared = type(owner)
        owner.__class__ = type(shared.__name__, shared.__bases__, dict(vars(shared)))
        copyreg.pickle(type(owner), _reduce)


def unparametrize(owner: nn.Module, name: str) -> None:
    """Make a parametrized tensor a plain parameter of the same values, frozen if all that it was computed from was."""
    _part_from_copies(owner)
    computed_from = owner.get_submodule(f"parametrizations.{name}")
    frozen = not any(parameter.requires_grad for parameter in computed_from.parameters())
    computed_from.requires_grad_(True)  # torch leaves no parameter behind where nothing is trainable.
    with torch.enable_grad():
        parametrize.remove_parametrizations(owner, name, leave_parametrized=True)
    owner.get_parameter(name).requires_grad_(not frozen)


def _reduce(owner: nn.Module) -> tuple[Any, ...]:
    lists = owner.get_submodule(_LISTS)
    return _restore, (parametrize.type_before_parametrizations(owner), state_without(owner, _LISTS), lists)


def _restore(original: type[nn.Module], state: dict[str, Any], lists: nn.ModuleDict) -> nn.Module:
    owner = original.__new__(original)
    owner.__setstate__(state)
    for name, saved in lists.items():
        assert isinstance(saved, parametrize.ParametrizationList)
        # Only a plain tensor can be parametrized; the saved parameters then take the place of its parts.
        owner.register_parameter(name, nn.Parameter(saved().detach()))
        parametrize_tensor(owner, name, saved[0], unsafe=True)
        owner.get_submodule(_LISTS).register_module(name, saved)
    return owner
