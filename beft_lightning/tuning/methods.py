"""The ways of training a model: what ``tune`` means."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from beft_lightning.bias import add_missing_biases, all_biases, freeze_except
from beft_lightning.bias.heads import head_parameters
from beft_lightning.bias.terms import bias_owners
from beft_lightning.errors import BeftError, TermError
from beft_lightning.tuning.peft_adapters import KINDS as ADAPTERS
from beft_lightning.tuning.peft_adapters import add_adapter
from beft_lightning.tuning.prefix import add_prefix, check_takes_prefix
from beft_lightning.tuning.random_mask import train_random_entries, train_random_rows
from beft_lightning.tuning.reparametrization import reparametrize_biases

#: The module decides nothing; a BiasSelectionCallback does.
AUTO = "auto"


def _all(model: nn.Module) -> None:
    """Every bias of the model (BitFit)."""
    freeze_except(model, [], keep=all_biases(model))


def _head(model: nn.Module) -> None:
    """Nothing but the head: the baseline any bias term has to beat."""
    model.requires_grad_(False)


def _full(model: nn.Module) -> None:
    """Every parameter."""
    half = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
    if half:
        raise BeftError(f"tune 'full' trains the weights, which then must be float32, not {half.pop()}.")
    model.requires_grad_(True)


def _random_mask(model: nn.Module, budget: int | None = None, seed: int = 0) -> None:
    """Random entries of all matrices, by default as many as the model has biases."""
    parameters = dict(model.named_parameters())
    biases = sum(parameters[name].numel() for name in all_biases(model)) if budget is None else budget
    model.requires_grad_(False)
    train_random_entries(model, biases, seed)


def _random_rows(model: nn.Module, seed: int = 0) -> None:
    """A random row or column of each linear layer."""
    model.requires_grad_(False)
    train_random_rows(model, seed)


def _reparametrized(model: nn.Module, kind: str, terms: list[str] | None = None, rank: int = 8) -> None:
    """Biases, by default the value ones, as functions of fewer numbers."""
    terms = ["value"] if terms is None else terms
    add_missing_biases(model, terms)
    model.requires_grad_(False)
    for parameter in reparametrize_biases(model, terms, kind, rank):
        parameter.requires_grad_(True)


def _adapter(model: nn.Module, kind: str, **options: Any) -> None:
    """An adapter of peft's."""
    add_adapter(model, kind, **options)


def _prefix(model: nn.Module, num_virtual_tokens: int = 5, seed: int = 0) -> None:
    """Keys and values in front of every layer's own."""
    model.requires_grad_(False)
    add_prefix(model, num_virtual_tokens, seed)


#: Way -> what sets it up on a model, the head apart. Any other value of ``tune`` names bias terms.
WAYS: Mapping[str, Callable[..., None]] = {
    "all": _all,
    "head": _head,
    "full": _full,
    "random_mask": _random_mask,
    "random_rows": _random_rows,
    **{f"{kind}_bias": partial(_reparametrized, kind=kind) for kind in ("low_rank", "vera", "scalar")},
    **{kind: partial(_adapter, kind=kind) for kind in ("lora", "dora", "vera", "ia3")},
    "prefix": _prefix,
}


#: The ways that draw what they train; their option ``seed`` says which draw. It is not the run's own seed unless asked
#: for, so that a checkpoint's mask is found again whatever the seed of the process that reads it.
RANDOM = frozenset({"random_mask", "random_rows", "prefix"})
#: The ways that change or replace matrices of the pretrained model.
CHANGES_MATRICES = frozenset({"full", "random_mask", "random_rows"})


def tuned_terms(tune: str | list[str]) -> list[str]:
    """``tune`` as a list: ``"query,value"`` and ``["query", "value"]`` mean the same."""
    return [name.strip() for name in tune.split(",")] if isinstance(tune, str) else list(tune)


def set_up_tuning(model: nn.Module, tune: str | list[str], options: Mapping[str, Any] | None = None) -> None:
    """Make trainable what ``tune`` says, and freeze the rest. The task head is trained in any case.

    Args:
        model: The model under its head.
        tune: A key of :data:`WAYS`, or bias terms such as ``value``, ``query,value`` or ``value.3``; biases the model
            lacks are added as zeros.
        options: Arguments of the way: ``budget`` and ``seed`` of a random mask, ``terms`` and ``rank`` of
            re-parametrised biases, ``num_virtual_tokens`` and ``seed`` of a prefix, anything that peft's configuration
            takes for its adapters.

    Raises:
        TermError: If a term does not exist.
        BeftError: If the way does not take an option, or cannot train this model.
    """
    names, options = tuned_terms(tune), options or {}
    parameters = dict(model.named_parameters())
    head = [parameters[name] for name in head_parameters(model)]
    check_ways(model, names)
    if len(names) == 1 and names[0] in WAYS:
        check_options(names[0], options)
        WAYS[names[0]](model, **options)
    else:
        check_options(",".join(names), options)
        add_missing_biases(model, list(dict.fromkeys(name.partition(".")[0] for name in names)))
        freeze_except(model, names)
    for parameter in head:
        parameter.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise BeftError(f"tune {tune!r} leaves nothing to train: this model has no head of its own.")


def check_ways(model: nn.Module, ways: Sequence[str]) -> None:
    """Refuse what a model cannot be trained in, before anything is trained.

    Args:
        model: The model, or any module that contains one.
        ways: Keys of :data:`WAYS`, and bias terms.

    Raises:
        TermError: If a name is neither a way of training nor a term of this model.
        BeftError: If the model, or what is installed, does not allow a way.
    """
    named = {name.partition(".")[0] for way in ways if way not in WAYS for name in tuned_terms(way)}
    if named and (unknown := named - (known := bias_owners(model)).keys()):
        raise TermError(
            f"tune {sorted(unknown)[0]!r} is no way of training and no term of this model; the ways are: "
            f"{', '.join(WAYS)}; the terms: {', '.join(known)}."
        )
    if (needing := [way for way in ways if way in ADAPTERS]) and find_spec("peft") is None:
        raise BeftError(f"tune {needing[0]!r} needs peft: pip install 'beft-lightning[peft]'.")
    if "prefix" in ways:
        check_takes_prefix(model)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a way of training does not take. What peft's adapters take, peft says when they are made.

    Args:
        name: A key of :data:`WAYS`; anything else takes none.
        options: The way's ``tune_options``.

    Raises:
        BeftError: If there is an option too many.
    """
    taken = inspect.signature(WAYS[name]).parameters if name in WAYS else {}
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values()):
        return
    known = [option for option in taken if option not in ("model", "kind")]
    if unknown := [option for option in options if option not in known]:
        raise BeftError(
            f"tune {name!r} takes no option {unknown[0]!r}; its tune_options are: {', '.join(known) or 'none'}."
        )
