"""Find a model's bias terms, add missing biases, and freeze all but a choice."""

import re
from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

from beft_lightning.bias.architectures import TERM_SYMBOLS, Architecture, architecture_of, language_model
from beft_lightning.errors import ArchitectureError, TermError

#: A term's name -> layer index -> the bias vector of that layer.
BiasTerms = dict[str, dict[int, nn.Parameter]]


def bias_owners(module: nn.Module, architecture: Architecture | None = None) -> dict[str, dict[int, nn.Module]]:
    """The modules that own, or could own, each term's bias: term -> layer index -> module.

    Args:
        module: A model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type.

    Raises:
        ArchitectureError: If the type is unknown or no module is where the architecture says.
    """
    known = architecture or architecture_of(module)
    root = module if architecture else language_model(module)
    layer = re.escape(known.layer).replace(re.escape("{}"), r"(\d+)")
    patterns = {term: re.compile(rf"(?:^|\.){layer}\.{re.escape(path)}$") for term, path in known.terms.items()}
    owners: dict[str, dict[int, nn.Module]] = {term: {} for term in known.terms}
    for name, child in root.named_modules():
        path = name.replace("_fsdp_wrapped_module.", "")
        for term, pattern in patterns.items():
            if match := pattern.search(path):
                index = int(match.group(1))
                if index in owners[term]:
                    raise ArchitectureError(
                        f"term {term!r} has two modules for layer {index} (one is {name!r}); "
                        "give a more specific `architecture.layer`, or only the part of the model to tune."
                    )
                owners[term][index] = child
    if missing := [term for term in owners if not owners[term]]:
        raise ArchitectureError(
            f"{type(root).__name__} has no module for {', '.join(map(repr, missing))} at "
            f"{', '.join(repr(f'{known.layer}.{known.terms[term]}') for term in missing)}. "
            "Correct the `architecture` mapping; `model.named_modules()` shows the paths."
        )
    return {term: dict(sorted(layers.items())) for term, layers in owners.items()}


def find_bias_terms(module: nn.Module, architecture: Architecture | None = None) -> BiasTerms:
    """The bias vectors of every term that ``module`` has.

    Args:
        module: A transformers model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type.

    Returns:
        Term name -> layer index (0-based) -> bias parameter. Terms without any bias are left out, so a bias-free
        model gives an empty dictionary; :func:`add_missing_biases` fills it.

    Raises:
        ArchitectureError: If the model's type is unknown or does not match its architecture.
    """
    terms: BiasTerms = {}
    for term, layers in bias_owners(module, architecture).items():
        found = {index: bias for index, owner in layers.items() if (bias := getattr(owner, "bias", None)) is not None}
        if found:
            terms[term] = found
    return terms


def add_missing_biases(
    module: nn.Module, terms: Iterable[str], architecture: Architecture | None = None
) -> list[nn.Parameter]:
    """Give the linear layers of ``terms`` their missing ``bias``, as zeros: the model's output does not change.

    No wrapper is put around the layer, so state-dict keys are those that transformers itself uses for the biased
    variant of the model (``attention_bias=True``). The new biases are fp32 whatever the weights are: a bf16 bias
    loses updates below about 0.4 % of its value.

    Args:
        module: A model, or any module that contains one.
        terms: Names of the terms that shall exist.
        architecture: Where the terms are; by default looked up by the model's type.

    Returns:
        The parameters that were added, empty if every layer had its bias.

    Raises:
        TermError: If a term is unknown to the architecture or belongs to a layer that is not linear.
    """
    owners = bias_owners(module, architecture)
    added = []
    for term in terms:
        if term not in owners:
            raise TermError(f"no term {term!r} in this model; it can have: {', '.join(owners)}.")
        for index, owner in owners[term].items():
            if getattr(owner, "bias", None) is not None:
                continue
            if not isinstance(owner, nn.Linear):
                raise TermError(
                    f"term {term!r} of layer {index} is a {type(owner).__name__} without a bias; "
                    "only nn.Linear layers can be given one."
                )
            owner.bias = nn.Parameter(torch.zeros(owner.out_features, device=owner.weight.device))
            added.append(owner.bias)
    return added


def resolve(terms: BiasTerms, selection: Iterable[str]) -> list[nn.Parameter]:
    """The bias vectors named by ``selection``.

    Args:
        terms: What the model has, from :func:`find_bias_terms`.
        selection: Names such as ``"value"`` (all layers) or ``"value.3"`` (layer 3 only, 0-based).

    Raises:
        TermError: If ``selection`` is empty or names something the model lacks.
    """
    parameters: dict[int, nn.Parameter] = {}
    for name in selection:
        term, _, index = name.partition(".")
        if term not in terms:
            known = ", ".join(terms) or "none at all (add_missing_biases gives it some)"
            hint = "" if term in TERM_SYMBOLS else f" Term names are: {', '.join(TERM_SYMBOLS)}."
            raise TermError(f"the model has no {term!r} bias; the bias terms it has: {known}.{hint}")
        if index and (not index.isdecimal() or int(index) not in terms[term]):
            raise TermError(f"{name!r} names no layer; layers of {term!r}: {min(terms[term])}..{max(terms[term])}.")
        chosen = [terms[term][int(index)]] if index else terms[term].values()
        parameters.update((id(bias), bias) for bias in chosen)
    if not parameters:
        raise TermError(f"no bias term was named; the model has: {', '.join(terms) or 'none'}.")
    return list(parameters.values())


def freeze_except(
    module: nn.Module, terms: Iterable[str], *, keep: Iterable[str] = (), architecture: Architecture | None = None
) -> list[str]:
    """Freeze every parameter of ``module`` but the chosen bias terms.

    Args:
        module: A model, or any module that contains one.
        terms: Names such as ``"value"`` or ``"value.3"``; may be empty if ``keep`` is not.
        keep: Names of further parameters to leave trainable, for example :func:`head_parameters`.
        architecture: Where the terms are; by default looked up by the model's type.

    Returns:
        The names left trainable, in the order of ``module.named_parameters()``.

    Raises:
        TermError: If a term does not exist or nothing would be left trainable.
    """
    terms, keep = list(terms), set(keep)
    chosen = {id(bias) for bias in resolve(find_bias_terms(module, architecture), terms)} if terms else set()
    names = [name for name, parameter in module.named_parameters() if id(parameter) in chosen or name in keep]
    if not names:
        raise TermError("nothing would be left trainable: name at least one bias term.")
    trainable = set(names)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trainable)
    return names


def head_parameters(module: nn.Module) -> list[str]:
    """Names of the task head's parameters: what is trained beside the biases.

    These are the parameters outside the pretrained base model, less its output embeddings (a language model's
    ``lm_head``), plus the bias of the pooler that feeds a classification head: the reference's rule, spelled out
    structurally. ``module`` may hold further layers of its own beside the model; they count as head.
    """
    model = language_model(module)
    base = model.base_model
    assert isinstance(base, PreTrainedModel)
    pretrained = {id(parameter) for parameter in base.parameters()}
    output_embeddings = model.get_output_embeddings()
    if output_embeddings is not None:
        pretrained |= {id(parameter) for parameter in output_embeddings.parameters()}
    pooler_biases = _pooler_biases(base) if base is not model else set()
    return [
        name
        for name, parameter in module.named_parameters()
        if id(parameter) not in pretrained or id(parameter) in pooler_biases
    ]


def _pooler_biases(base: PreTrainedModel) -> set[int]:
    pooler = getattr(base, "pooler", None)
    if not isinstance(pooler, nn.Module):
        return set()
    return {id(parameter) for name, parameter in pooler.named_parameters() if name.endswith("bias")}


def all_biases(module: nn.Module) -> list[str]:
    """Names of every bias of the model, in and outside its layers (BitFit, arXiv 2106.10199).

    Raises:
        TermError: If the model has no bias at all.
    """
    names = [name for name, _ in module.named_parameters() if name.rpartition(".")[2] == "bias"]
    if not names:
        raise TermError("the model has no bias at all; name the terms to add instead, for example 'value'.")
    return names
