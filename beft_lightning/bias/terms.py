"""Find a model's bias terms, add missing biases, and freeze all but a choice."""

import re
from collections.abc import Iterable

import torch
from torch import nn

from beft_lightning.bias.architecture import TERM_SYMBOLS, Architecture, Fused
from beft_lightning.bias.fused import fused_parts, is_bias, split
from beft_lightning.bias.lookup import architecture_of, pretrained_model
from beft_lightning.errors import ArchitectureError, TermError
from beft_lightning.parameters import clean_name

#: A term's name -> layer index -> the bias vector of that layer.
BiasTerms = dict[str, dict[int, nn.Parameter]]


def bias_owners(module: nn.Module, architecture: Architecture | None = None) -> dict[str, dict[int, nn.Module]]:
    """Return the modules that own, or could own, each term's bias: term -> layer index -> module.

    Args:
        module: A model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type.

    Raises:
        ArchitectureError: If the type is unknown or no module is where the architecture says.
    """
    known = architecture or architecture_of(module)
    root = module if architecture else pretrained_model(module)
    paths = known.paths
    patterns = {term: _pattern(f"{known.layer}.{path}") for term, path in paths.items()}
    # Term -> path of a stack of layers -> index in the stack -> module.
    stacks: dict[str, dict[str, dict[int, nn.Module]]] = {term: {} for term in paths}
    for name, child in root.named_modules():
        path = clean_name(name)
        for term, pattern in patterns.items():
            if match := pattern.search(path):
                index, stack = int(match.group(1)), path[: match.start(1)]
                layers = stacks[term].setdefault(stack, {})
                if index in layers or (len(stacks[term]) > 1 and "*" not in known.layer):
                    raise ArchitectureError(
                        f"term {term!r} has two modules for layer {index} (one is {name!r}); "
                        "give a more specific `architecture.layer`, or only the part of the model to tune."
                    )
                layers[index] = child
    if missing := [term for term in stacks if not stacks[term]]:
        raise ArchitectureError(
            f"{type(root).__name__} has no module for {', '.join(map(repr, missing))} at "
            f"{', '.join(repr(f'{known.layer}.{paths[term]}') for term in missing)}. "
            "Correct the `architecture` mapping; `model.named_modules()` shows the paths."
        )
    return {term: _counted_on(list(found.values())) for term, found in stacks.items()}


def owners_of(
    terms: Iterable[str], module: nn.Module, architecture: Architecture | None = None
) -> dict[str, dict[int, nn.Module]]:
    """Return the same as :func:`bias_owners` for chosen terms alone.

    Raises:
        ArchitectureError: As there.
        TermError: If the architecture has no such term.
    """
    owners = bias_owners(module, architecture)
    terms = list(terms)
    if unknown := [term for term in terms if term not in owners]:
        raise TermError(f"no term {unknown[0]!r} in this model; it can have: {', '.join(owners)}.")
    return {term: owners[term] for term in terms}


def without_layers(terms: Iterable[str]) -> list[str]:
    """Return each term once, without the index of a layer.

    >>> without_layers(["value.3", "query", "value.4"])
    ['value', 'query']
    """
    return list(dict.fromkeys(term.partition(".")[0] for term in terms))


def _pattern(path: str) -> re.Pattern[str]:
    """Return a pattern of the end of a module's name: ``{}`` is an index, ``*`` any one name."""
    escaped = re.escape(path).replace(re.escape("{}"), r"(\d+)").replace(re.escape("*"), r"[^.]+")
    return re.compile(rf"(?:^|\.){escaped}$")


def _counted_on(stacks: list[dict[int, nn.Module]]) -> dict[int, nn.Module]:
    """Return the layers of several stacks, numbered one stack after the other."""
    layers: dict[int, nn.Module] = {}
    for stack in stacks:
        first = max(layers, default=-1) + 1
        layers |= {first + index: stack[index] for index in sorted(stack)}
    return layers


def _fused_layouts(module: nn.Module, architecture: Architecture | None) -> dict[str, Fused]:
    """Return the layout of the fused layer of each term that has one."""
    known = architecture or architecture_of(module)
    return {term: fused for fused in known.fused.values() for term in fused.parts}


def find_bias_terms(module: nn.Module, architecture: Architecture | None = None) -> BiasTerms:
    """Return the bias vectors of every term that ``module`` has. The module does not change.

    Args:
        module: A transformers model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type.

    Returns:
        Term name -> layer index (0-based) -> bias parameter. Terms without any bias are left out, so a bias-free
        model gives an empty dictionary; :func:`add_missing_biases` fills it. A part of a fused bias is a view of it, to
        read or write, until :func:`split_fused_biases` has made it a parameter that can be trained.

    Raises:
        ArchitectureError: If the model's type is unknown or does not match its architecture.
    """
    layouts = _fused_layouts(module, architecture)
    terms: BiasTerms = {}
    for term, layers in bias_owners(module, architecture).items():
        found = {index: bias for index, owner in layers.items() if (bias := _bias(owner, term, layouts)) is not None}
        if found:
            terms[term] = found
    return terms


def _bias(owner: nn.Module, term: str, layouts: dict[str, Fused]) -> nn.Parameter | None:
    bias: nn.Parameter | None = getattr(owner, "bias", None)
    return fused_parts(owner, layouts[term])[term] if bias is not None and term in layouts else bias


def split_fused_biases(module: nn.Module, architecture: Architecture | None = None) -> None:
    """Make every part of every fused bias a parameter of its own; the model's output does not change.

    A fused bias then stands in the state dict as ``parametrizations.bias.original0``, ``original1``, ... in its parts'
    order; :func:`~beft_lightning.bias.fuse_biases` undoes it, for example before ``save_pretrained``.

    Args:
        module: A model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type.
    """
    layouts = _fused_layouts(module, architecture)
    if not layouts:
        return
    for term, layers in bias_owners(module, architecture).items():
        for owner in layers.values():
            if term in layouts and getattr(owner, "bias", None) is not None:
                split(owner, layouts[term])


def add_missing_biases(
    module: nn.Module, terms: Iterable[str], architecture: Architecture | None = None
) -> list[nn.Parameter]:
    """Give the linear layers of ``terms`` their missing ``bias``, as zeros: the model's output does not change.

    No wrapper is put around the layer, so state-dict keys are those that transformers itself uses for the biased
    variant of the model (``attention_bias=True``). The new biases are fp32 whatever the weights are: a bf16 bias
    loses updates below about 0.4 % of its value. A fused layer gets the biases of all its parts. Fused biases, new
    and old, are split, so that each term can be trained alone.

    Args:
        module: A model, or any module that contains one.
        terms: Names of the terms that shall exist.
        architecture: Where the terms are; by default looked up by the model's type.

    Returns:
        The parameters that were added, empty if every layer had its bias.

    Raises:
        TermError: If a term is unknown to the architecture or belongs to a layer that is not linear.
    """
    layouts = _fused_layouts(module, architecture)
    changed: list[tuple[str, nn.Linear]] = []
    for term, owners in owners_of(terms, module, architecture).items():
        for index, owner in owners.items():
            if getattr(owner, "bias", None) is not None:
                continue
            if not isinstance(owner, nn.Linear):
                raise TermError(
                    f"term {term!r} of layer {index} is a {type(owner).__name__} without a bias; "
                    "only nn.Linear layers can be given one."
                )
            owner.bias = nn.Parameter(torch.zeros(owner.out_features, device=owner.weight.device))
            changed.append((term, owner))
    split_fused_biases(module, architecture)
    added: list[nn.Parameter] = []
    for term, owner in changed:
        added.extend(fused_parts(owner, layouts[term]).values() if term in layouts else [owner.bias])
    return added


def resolve(terms: BiasTerms, selection: Iterable[str]) -> list[nn.Parameter]:
    """Return the bias vectors named by ``selection``.

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
    """Freeze every parameter of ``module`` but the chosen bias terms. Fused biases are split first.

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
    if terms:
        split_fused_biases(module, architecture)
    chosen = {id(bias) for bias in resolve(find_bias_terms(module, architecture), terms)} if terms else set()
    if unknown := keep - {name for name, _ in module.named_parameters()}:
        raise TermError(f"keep names {sorted(unknown)[0]!r}, and {type(module).__name__} has no such parameter.")
    names = [name for name, parameter in module.named_parameters() if id(parameter) in chosen or name in keep]
    if not names:
        raise TermError("nothing would be left trainable: name at least one bias term.")
    trainable = set(names)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trainable)
    return names


def all_biases(module: nn.Module) -> list[str]:
    """Return the names of every bias of the model, in and outside its layers (BitFit, arXiv 2106.10199).

    Raises:
        TermError: If the model has no bias at all.
    """
    names = [name for name, _ in module.named_parameters() if is_bias(name)]
    if not names:
        raise TermError("the model has no bias at all; name the terms to add instead, for example 'value'.")
    return names
