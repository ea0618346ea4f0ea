"""The biases that a checkpoint names: added to a module that lacks them, split where the checkpoint has their parts."""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from beft_lightning.bias.architecture import Architectures, Fused
from beft_lightning.bias.fused import FusedBias, add_bias, bias_name, fuse, is_bias, layout_of, same_layout, split_again
from beft_lightning.bias.lookup import watched_models
from beft_lightning.bias.parametrized import MARK, plain_name
from beft_lightning.bias.terms import split_fused_biases
from beft_lightning.errors import ArchitectureError, CheckpointError
from beft_lightning.parameters import clean_name, full_tensor, named_parameters


def fit_structure(
    module: nn.Module,
    names: Collection[str],
    architecture: Architectures = None,
    layouts: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Give a module the biases that a checkpoint names. The module computes the same as before.

    Linear layers get missing biases, as zeros. Fused biases are split if the checkpoint has their parts. Everything
    else stays as it is, and so does a module that has all this already.

    Args:
        module: Changed in place.
        names: Names of all parameters that the checkpoint knows, in ``module``.
        architecture: Where the terms are; by default looked up for each transformers model in ``module``.
        layouts: The checkpoint's :func:`split_layouts`; files of earlier versions have none.

    Raises:
        CheckpointError: If ``module`` lacks a bias of ``layouts``, or has it split in another way.
    """
    owners = {clean_name(path): child for path, child in module.named_modules()}
    saved = {path: Fused(**layout) for path, layout in (layouts or {}).items() if path in owners}
    for path, layout in saved.items():
        _check_layout(path, owners[path], layout)
    add_biases(module, map(plain_name, names))
    split_again((owners[path], layout) for path, layout in saved.items() if not _is_divided(owners[path], layout))
    # A checkpoint of whole terms fits a module whose heads are set apart.
    layouts_here = {path: here for path, owner in owners.items() if (here := layout_of(owner)) is not None}
    fuse(owners[path] for path, here in layouts_here.items() if here.by_heads and f"{path}.{here.bias}" in names)
    split_named_biases(module, names, architecture)


def _check_layout(path: str, owner: nn.Module, saved: Fused) -> None:
    """Raise an error unless the bias of ``owner`` can be split as in a checkpoint, or is split so already."""
    if not hasattr(owner, saved.bias):
        raise CheckpointError(
            f"the checkpoint divides the bias {saved.bias!r} of {path!r}, which this model lacks: give the model it "
            "was trained with."
        )
    here = layout_of(owner)
    if here is not None and not (_is_divided(owner, saved) or here.by_heads or saved.by_heads):
        raise CheckpointError(
            f"this model has the bias of {path!r} divided into {_described(here)}, and the checkpoint into "
            f"{_described(saved)}: give a fresh model, or the `architecture` that the fit was given."
        )


def _is_divided(owner: nn.Module, layout: Fused) -> bool:
    """Return whether the bias of ``owner`` is divided in a certain way."""
    here = layout_of(owner)
    return here is not None and same_layout(here, layout, len(getattr(owner, here.bias)))


def _described(layout: Fused) -> str:
    return f"{', '.join(f'{part} ({share})' for part, share in layout.parts.items())} in groups {layout.groups}"


def split_layouts(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Return how each layer of ``module`` whose bias is split orders its outputs, in plain types."""
    layouts = {clean_name(path): layout_of(child) for path, child in module.named_modules()}
    return {path: asdict(layout) for path, layout in layouts.items() if layout is not None}


def add_biases(module: nn.Module, names: Iterable[str]) -> list[nn.Linear | nn.MultiheadAttention]:
    """Give linear layers and attentions the biases among ``names`` that ``module`` lacks, as zeros.

    Args:
        module: Changed in place.
        names: Names of parameters; those that are no bias of such a layer are ignored.

    Returns:
        The layers that were given one.
    """
    layers = {
        clean_name(path): child
        for path, child in module.named_modules()
        if isinstance(child, nn.Linear | nn.MultiheadAttention) and getattr(child, bias_name(child)) is None
    }
    places = dict.fromkeys(name.rpartition(".")[::2] for name in names)
    added = [layers[path] for path, own in places if path in layers and own == bias_name(layers[path])]
    for owner in added:
        add_bias(owner)
    return added


def split_named_biases(module: nn.Module, names: Iterable[str], architecture: Architectures = None) -> None:
    """Split the fused biases in ``module`` of which ``names`` has parts.

    Args:
        module: Changed in place.
        names: Names of parameters in ``module``.
        architecture: Where the terms are; by default looked up for each transformers model in ``module``.

    Raises:
        ArchitectureError: If nothing says how to split one.
    """
    paths = {name.partition(MARK)[0] for name in names if MARK in name and is_bias(name)}
    owners = {clean_name(path): child for path, child in module.named_modules()}
    whole = [path for path in paths if path in owners and not is_parametrized(owners[path])]
    if architecture is not None and whole:
        split_fused_biases(module, architecture)
    for name, model in watched_models(module).items() if architecture is None else ():
        if any(not name or path.startswith(f"{clean_name(name)}.") for path in whole):
            with suppress(ArchitectureError):  # What stays whole is an error below, which knows the checkpoint.
                split_fused_biases(model)
    if unknown := [path for path in whole if not is_parametrized(owners[path])]:
        raise ArchitectureError(
            f"the checkpoint has parts of the bias of {unknown[0]!r}, and nothing says how that is divided: give the "
            "`architecture` that the fit was given, as in load_adapter(module, path, architecture=...) or "
            "AdapterCheckpoint(architecture=...). A checkpoint that AdapterCheckpoint has written says it by itself."
        )


def fit_state(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a whole or partial state under the names that ``module`` has for it.

    A fused bias is split where the module's is. Zero biases of the module that the state knows the layer's weight of,
    but no bias, are added to it: the model that was saved had none there.

    Args:
        module: A module; unchanged.
        state: Tensors by their names in a state dict.
    """
    fitted = dict(state)
    for path, owner in module.named_modules():
        layout = layout_of(owner)
        if layout is not None and (name := f"{clean_name(path)}.{layout.bias}") in fitted:
            for place, part in enumerate(FusedBias(layout).right_inverse(fitted.pop(name))):
                fitted[f"{clean_name(path)}{MARK}{layout.bias}.original{place}"] = part
    return fitted | zero_biases(module, fitted)


def zero_biases(module: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    """Return the zero biases of ``module`` that a checkpoint does not know of, although it knows the layer's weight.

    The model that was saved had none there, and computed the same.

    Args:
        module: A module; unchanged.
        names: Names of all parameters that the checkpoint knows.
    """
    found = {}
    for name, parameter in named_parameters(module):
        weight = f"{plain_name(name).removesuffix('bias')}weight"
        if is_bias(name) and name not in names and weight in names and not full_tensor(parameter).any():
            found[name] = parameter.detach()
    return found
