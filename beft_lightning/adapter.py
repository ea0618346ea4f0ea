"""The adapter in a module: its trained values, taken out into a checkpoint and put back into a fresh module."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from beft_lightning.bias.architecture import Architectures
from beft_lightning.bias.found import found_record, offer_record, restore_found
from beft_lightning.bias.parametrized import plain_name
from beft_lightning.bias.structure import fit_state, fit_structure, split_layouts, zero_biases
from beft_lightning.checkpoint import (
    FINGERPRINT_KEY,
    FOUND_KEY,
    LAYOUTS_KEY,
    RNG_KEY,
    TRAINED_BEFORE_KEY,
    TRAINED_KEY,
    check_state_dict,
    held_names,
    read_checkpoint,
    trainable_names,
)
from beft_lightning.errors import CheckpointError
from beft_lightning.fingerprint import check_fingerprint, fingerprint
from beft_lightning.parameters import named_parameters

#: A module's attribute: the parameters whose values are not the pretrained ones, although they may be frozen now.
_TRAINED = "beft_trained"
#: Where Lightning's WeightAveraging and StochasticWeightAveraging keep a second state of the module in a checkpoint.
_CURRENT_STATE, _AVERAGE_STATE = "current_model_state", "average_model_state"


def load_adapter(module: nn.Module, path: str | Path, architecture: Architectures = None) -> None:
    """Put the values of a checkpoint into a module.

    Biases that the checkpoint has and the module lacks are added, and fused ones are split, as in the fit. The module
    can be on any device and of any precision; nothing is frozen. Full checkpoints are loaded whole.

    Example::

        module = MyModule()
        load_adapter(module, "checkpoints/last.ckpt")

    Args:
        module: The module that was fitted, with its pretrained weights.
        path: A checkpoint of a fit with :class:`~beft_lightning.AdapterCheckpoint`.
        architecture: Where the bias terms are, if the fit was told so. It is needed only for parts of fused biases
            in files of earlier versions.

    Raises:
        CheckpointError: If the file is missing or damaged, or was trained over another model.
    """
    checkpoint = read_checkpoint(path)
    if isinstance(module, LightningModule):
        offer_record(module, checkpoint.get(FOUND_KEY, {}))
        module.configure_model()  # Lightning, too, may call it again for a model that is there.
    load_values(module, checkpoint, path, architecture)


def load_values(
    module: nn.Module, checkpoint: Mapping[str, Any], path: str | Path, architecture: Architectures = None
) -> None:
    """Put the values of a checkpoint that has been read into a module; see :func:`load_adapter`.

    Args:
        module: Changed in place.
        checkpoint: The content of the file.
        path: The file, for error messages.
        architecture: Where the model's biases are; by default looked up by its type.

    Raises:
        CheckpointError: If the checkpoint was trained over another model.
    """
    state = prepare(module, checkpoint, lambda: fingerprint(module), architecture)
    if TRAINED_KEY not in checkpoint:
        different = sorted(module.state_dict().keys() ^ state.keys())
        if different:
            raise CheckpointError(
                f"{path}: a full checkpoint of another model: only one of the two has {different[0]!r}. Give the "
                "module that was fitted."
            )
        check_state_dict(module, state)
    module.load_state_dict(state, strict=False)


def prepare(
    module: nn.Module,
    checkpoint: Mapping[str, Any],
    identify: Callable[[], Mapping[str, list[Any]]],
    architecture: Architectures = None,
) -> dict[str, Tensor]:
    """Make a module ready for the values of a checkpoint.

    The module gets the checkpoint's biases. A checkpoint of trained values is checked against the module.

    Args:
        module: Changed in place: its structure, not its values.
        checkpoint: The content of a file.
        identify: Gives the module's :func:`~beft_lightning.fingerprint.fingerprint`.
        architecture: Where the bias terms are, for models that the built-in table does not know.

    Returns:
        The checkpoint's values under the module's names.

    Raises:
        CheckpointError: If the checkpoint was trained over another model.
    """
    values: Mapping[str, Tensor] = checkpoint["state_dict"]
    known = {*values, *checkpoint.get(FINGERPRINT_KEY, ())}
    restore_found(module, checkpoint.get(FOUND_KEY, {}))
    fit_structure(module, known, architecture, checkpoint.get(LAYOUTS_KEY))
    state = fit_state(module, values)
    if TRAINED_KEY in checkpoint:
        held = held_names(checkpoint)
        check_state_dict(module, state)
        added = zero_biases(module, known)
        here = {name: identity for name, identity in identify().items() if name not in added}
        check_fingerprint(checkpoint[FINGERPRINT_KEY], here, held)
        remember_trained(module, held)
    return state


def remember_trained(module: nn.Module, names: Iterable[str]) -> None:
    """Note on a module that parameters have values of their own, which later checkpoints have to hold."""
    setattr(module, _TRAINED, sorted({*_remembered(module), *names}))


def remember_divided(module: nn.Module, names: Iterable[str]) -> None:
    """Note that biases were divided anew: if some part of one had a value of its own, all of its parts have now.

    Args:
        module: The module.
        names: Names of the parts.
    """
    before = set(map(plain_name, _remembered(module)))
    if held := [name for name in names if plain_name(name) in before]:
        remember_trained(module, held)


def trained_names(module: nn.Module) -> list[str]:
    """Return the names of the parameters that are trained, or were in an earlier fit of the same module."""
    before = _remembered(module)
    return [name for name, p in named_parameters(module) if p.requires_grad or name in before]


def _remembered(module: nn.Module) -> Collection[str]:
    return frozenset(getattr(module, _TRAINED, ()))


def keep_trained(module: nn.Module, checkpoint: dict[str, Any], identity: Mapping[str, list[Any]]) -> None:
    """Drop the frozen weights from a checkpoint, in place; add the names of what was trained, and what identifies them.

    Args:
        module: The module that the checkpoint is of.
        checkpoint: Lightning's content of a checkpoint.
        identity: The module's :func:`~beft_lightning.fingerprint.fingerprint`.
    """
    trained, now = trained_names(module), trainable_names(module)
    # With tied weights, one tensor stands in the state under several names.
    everything = list(named_parameters(module, remove_duplicate=False))
    kept = {id(parameter) for name, parameter in everything if name in set(trained)}
    # FSDP hides frozen weights that it has gathered, so names come from when the model was whole, too.
    frozen = {*identity, *(name for name, _ in everything)} - {name for name, p in everything if id(p) in kept}
    for holder, key in _states(checkpoint):
        holder[key] = {name: value for name, value in holder[key].items() if name not in frozen}
    checkpoint[TRAINED_KEY] = now
    if before := [name for name in trained if name not in set(now)]:
        checkpoint[TRAINED_BEFORE_KEY] = before
    checkpoint[FINGERPRINT_KEY] = {name: value for name, value in identity.items() if name in frozen}
    if layouts := split_layouts(module):
        checkpoint[LAYOUTS_KEY] = layouts
    if found := found_record(module):
        checkpoint[FOUND_KEY] = found
    checkpoint.setdefault(RNG_KEY, [])


def complete_averages(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Put a module's frozen weights into the states that Lightning's weight averaging is about to load whole.

    Args:
        module: The module, with its pretrained weights.
        checkpoint: The content of a file; changed in place if there are such states.
    """
    holders = list(_states(checkpoint))
    if len(holders) > 1:
        whole = module.state_dict()
        for holder, key in holders:
            holder[key] = {**whole, **holder[key]}


def _states(checkpoint: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield where the states of the module stand in a checkpoint: a dictionary and its key."""
    yield from ((checkpoint, key) for key in ("state_dict", _CURRENT_STATE) if key in checkpoint)
    for state in checkpoint.get("callbacks", {}).values():
        if isinstance(state, dict) and isinstance(state.get(_AVERAGE_STATE), dict):
            yield state, _AVERAGE_STATE
