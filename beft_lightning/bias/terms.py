"""Find a model's bias terms, add missing biases, and freeze all but a choice."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from beft_lightning.bias.architecture import TERM_SYMBOLS, Architecture, Architectures, Fused
from beft_lightning.bias.fused import add_bias, fused_parts, is_bias, split
from beft_lightning.bias.lookup import architecture_stacks, pretrained_model
from beft_lightning.errors import ArchitectureError, TermError
from beft_lightning.parameters import clean_name

#: A term's name -> layer index -> the bias vector of that layer.
BiasTerms = dict[str, dict[int, nn.Parameter]]


@dataclass(frozen=True)
class Place:
    """Where one layer's bias of a term is, or could be.

    Args:
        owner: The module that owns it.
        layout: How the module orders several terms; None where the bias is of one term alone.
    """

    owner: nn.Module
    layout: Fused | None = None

    @property
    def bias(self) -> nn.Parameter | None:
        """The whole bias of the owner, be it of one term or several."""
        bias: nn.Parameter | None = getattr(self.owner, self.layout.bias if self.layout else "bias", None)
        return bias

    def parts(self) -> dict[str, nn.Parameter]:
        """The biases of the terms in the owner's fused one."""
        assert self.layout is not None
        return fused_parts(self.owner, self.layout)


def bias_owners(module: nn.Module, architecture: Architectures = None) -> dict[str, dict[int, nn.Module]]:
    """Return the modules that own, or could own, each term's bias: term -> layer index -> module.

    Args:
        module: A model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.

    Raises:
        ArchitectureError: If nothing is known of the model, or no module is where the architecture says.
    """
    return {
        term: {index: place.owner for index, place in layers.items()}
        for term, layers in _places(module, architecture).items()
    }


def _places(module: nn.Module, architecture: Architectures) -> dict[str, dict[int, Place]]:
    """Return the places of each term's bias: term -> layer index -> place."""
    root = pretrained_model(module) if architecture is None else module
    stacks: dict[str, list[dict[int, Place]]] = {}
    for one in architecture_stacks(module, architecture):
        for term, found in _stacks(root, one).items():
            stacks.setdefault(term, []).extend(found)
    return {term: _counted_on(found) for term, found in stacks.items()}


def _stacks(root: nn.Module, known: Architecture) -> dict[str, list[dict[int, Place]]]:
    """Return the stacks of layers that an architecture describes: term -> stacks -> index in the stack -> place."""
    paths = known.paths
    layouts = {term: fused for fused in known.fused.values() for term in fused.parts}
    patterns = {term: _pattern(f"{known.layer}.{path}") for term, path in paths.items()}
    # Term -> path of a stack of layers -> index in the stack -> place.
    stacks: dict[str, dict[str, dict[int, Place]]] = {term: {} for term in paths}
    whole: dict[str, set[str]] = {term: set() for term in paths}
    for name, child in root.named_modules():
        path = clean_name(name)
        for term, pattern in patterns.items():
            if match := pattern.search(path):
                index, stack = int(match.group(1)), path[: match.start(1)]
                if match.start() == 0:
                    whole[term].add(stack)
                layers = stacks[term].setdefault(stack, {})
                if index in layers:
                    raise _ambiguous(term, index, name)
                layers[index] = Place(child, layouts.get(term))
    for term, found in stacks.items():
        # A path from the root on means this one alone.
        if whole[term]:
            stacks[term] = found = {stack: layers for stack, layers in found.items() if stack in whole[term]}
        if len(found) > 1 and "*" not in known.layer:
            stack, layers = list(found.items())[1]
            raise _ambiguous(term, min(layers), f"{stack}{min(layers)}")
    if missing := [term for term in stacks if not stacks[term]]:
        raise ArchitectureError(
            f"{type(root).__name__} has no module for {', '.join(map(repr, missing))} at "
            f"{', '.join(repr(f'{known.layer}.{paths[term]}') for term in missing)}. "
            "Correct the `architecture` mapping; `model.named_modules()` shows the paths."
        )
    return {term: list(found.values()) for term, found in stacks.items()}


def _ambiguous(term: str, index: int, name: str) -> ArchitectureError:
    return ArchitectureError(
        f"term {term!r} has two modules for layer {index} (one is {name!r}); "
        "give a more specific `architecture.layer`, or only the part of the model to tune."
    )


def _pattern(path: str) -> re.Pattern[str]:
    """Return a pattern of the end of a module's name: ``{}`` is an index, ``*`` any one name."""
    escaped = re.escape(path).replace(re.escape("{}"), r"(\d+)").replace(re.escape("*"), r"[^.]+")
    return re.compile(rf"(?:^|\.){escaped}$")


def _counted_on(stacks: list[dict[int, Place]]) -> dict[int, Place]:
    """Return the layers of several stacks, numbered one stack after the other."""
    layers: dict[int, Place] = {}
    for stack in stacks:
        first = max(layers, default=-1) + 1
        layers |= {first + index: stack[index] for index in sorted(stack)}
    return layers


def find_bias_terms(module: nn.Module, architecture: Architectures = None) -> BiasTerms:
    """Return the bias vectors of every term that ``module`` has. The module does not change.

    Args:
        module: A transformers model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.

    Returns:
        Term name -> layer index (0-based) -> bias parameter. Terms without any bias are left out, so a bias-free
        model gives an empty dictionary; :func:`add_missing_biases` fills it. A part of a fused bias is a view of it, to
        read or write, until :func:`split_fused_biases` has made it a parameter that can be trained.

    Raises:
        ArchitectureError: If the model's type is unknown or does not match its architecture.
    """
    terms: BiasTerms = {}
    for term, layers in _places(module, architecture).items():
        if found := {index: _bias_of(place, term) for index, place in layers.items() if place.bias is not None}:
            terms[term] = found
    return terms


def _bias_of(place: Place, term: str) -> nn.Parameter:
    if place.layout is not None:
        return place.parts()[term]
    assert place.bias is not None
    return place.bias


def split_fused_biases(module: nn.Module, architecture: Architectures = None) -> None:
    """Make every part of every fused bias a parameter of its own; the model's output does not change.

    A fused bias then stands in the state dict as ``parametrizations.bias.original0``, ``original1``, ... in its parts'
    order; :func:`~beft_lightning.bias.fuse_biases` undoes it, for example before ``save_pretrained``.

    Args:
        module: A model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.
    """
    for layers in _places(module, architecture).values():
        for place in layers.values():
            if place.layout is not None and place.bias is not None:
                split(place.owner, place.layout)


def add_missing_biases(
    module: nn.Module, terms: Iterable[str], architecture: Architectures = None
) -> list[nn.Parameter]:
    """Give the linear layers of ``terms`` their missing ``bias``, as zeros: the model's output does not change.

    No wrapper is put around the layer, so state-dict keys are those that transformers itself uses for the biased
    variant of the model (``attention_bias=True``). The new biases are fp32 whatever the weights are: a bf16 bias
    loses updates below about 0.4 % of its value. A fused layer gets the biases of all its parts. Fused biases, new
    and old, are split, so that each term can be trained alone.

    Args:
        module: A model, or any module that contains one.
        terms: Names of the terms that shall exist.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.

    Returns:
        The parameters that were added, empty if every layer had its bias.

    Raises:
        TermError: If a term is unknown to the architecture or belongs to a layer that is not linear.
    """
    places = _places(module, architecture)
    changed: list[Place] = []
    for term in terms:
        if term not in places:
            raise TermError(f"no term {term!r} in this model; it can have: {', '.join(places)}.")
        for index, place in places[term].items():
            if place.bias is not None:
                continue
            if not isinstance(place.owner, nn.Linear | nn.MultiheadAttention):
                raise TermError(
                    f"term {term!r} of layer {index} is a {type(place.owner).__name__} without a bias; "
                    "only nn.Linear layers can be given one."
                )
            add_bias(place.owner)
            changed.append(place)
    split_fused_biases(module, architecture)
    added: list[nn.Parameter] = []
    for place in changed:
        assert place.bias is not None
        added.extend([place.bias] if place.layout is None else place.parts().values())
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
    module: nn.Module, terms: Iterable[str], *, keep: Iterable[str] = (), architecture: Architectures = None
) -> list[str]:
    """Freeze every parameter of ``module`` but the chosen bias terms. Fused biases are split first.

    Args:
        module: A model, or any module that contains one.
        terms: Names such as ``"value"`` or ``"value.3"``; may be empty if ``keep`` is not.
        keep: Names of further parameters to leave trainable, for example :func:`head_parameters`.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.

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
