"""Find a model's bias terms, add missing biases, and freeze all but a choice."""

from collections.abc import Iterable

from torch import nn

from beft_lightning.bias.architecture import TERM_SYMBOLS, Architectures
from beft_lightning.bias.attention_heads import HeadedBias, headed_bias, pieces, set_heads_apart
from beft_lightning.bias.fused import add_bias, is_bias, is_split, split_all
from beft_lightning.bias.names import has_head, in_towers, parsed, role, without_layers
from beft_lightning.bias.owners import Place, chosen, places_of
from beft_lightning.bias.scope import Scope
from beft_lightning.errors import TermError

#: A term's name -> layer index -> the bias vector of that layer.
BiasTerms = dict[str, dict[int, nn.Parameter]]


def find_bias_terms(module: nn.Module, architecture: Architectures = None, scope: Scope = None) -> BiasTerms:
    """Return the bias vectors of every term that ``module`` has. The module does not change.

    Args:
        module: A transformers model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.
        scope: Names of the submodules to look at; by default everything.

    Returns:
        Term name -> layer index (0-based) -> bias parameter. Terms without any bias are left out, so a bias-free
        model gives an empty dictionary; :func:`add_missing_biases` fills it. A part of a fused bias is a view of it, to
        read or write, until :func:`split_fused_biases` has made it a parameter that can be trained. A bias whose heads
        are set apart is a copy of them, to read; its ``heads`` are the parameters. A bias that several layers share is
        there once. In a scope of several submodules, the terms of each are apart:
        ``vision_model.value``.

    Raises:
        ArchitectureError: If the model's type is unknown or does not match its architecture.
    """
    terms: BiasTerms = {}
    for term, layers in places_of(module, architecture, scope).items():
        if found := {index: _bias_of(place, term) for index, place in layers.items() if place.bias is not None}:
            terms[term] = found
    return terms


def _bias_of(place: Place, term: str) -> nn.Parameter:
    if place.layout is not None or is_split(place.owner):
        parts = place.parts()
        return parts[role(term)] if role(term) in parts else headed_bias(parts, role(term))
    assert place.bias is not None
    return place.bias


def split_fused_biases(module: nn.Module, architecture: Architectures = None, scope: Scope = None) -> None:
    """Make every part of every fused bias a parameter of its own; the model's output does not change.

    A fused bias then stands in the state dict as ``parametrizations.bias.original0``, ``original1``, ... in its parts'
    order; :func:`~beft_lightning.bias.fuse_biases` undoes it, for example before ``save_pretrained``.

    Args:
        module: A model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.
        scope: Names of the submodules to look at; by default everything.
    """
    split_all(
        (owner, place.layout)
        for layers in places_of(module, architecture, scope).values()
        for place in layers.values()
        if place.layout is not None and place.bias is not None
        for owner in (place.owner, *place.tied)
    )


def add_missing_biases(
    module: nn.Module, terms: Iterable[str], architecture: Architectures = None, scope: Scope = None
) -> list[nn.Parameter]:
    """Give the linear layers of ``terms`` their missing ``bias``, as zeros: the model's output does not change.

    No wrapper is put around the layer, so state-dict keys are those that transformers itself uses for the biased
    variant of the model (``attention_bias=True``). The new biases are fp32 whatever the weights are: a bf16 bias
    loses updates below about 0.4 % of its value. A fused layer gets the biases of all its parts. Fused biases, new
    and old, are split, so that each term can be trained alone.

    Args:
        module: A model, or any module that contains one.
        terms: Names of the terms that shall exist; a layer or a head stands for its term.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.
        scope: Names of the submodules to look at; by default everything.

    Returns:
        The parameters that were added, empty if every layer had its bias.

    Raises:
        TermError: If a term is unknown to the architecture or belongs to a layer that is not linear.
    """
    changed: list[Place] = []
    for term, places in chosen(without_layers(terms), places_of(module, architecture, scope)).items():
        for index, place in places.items():
            if place.bias is not None:
                continue
            if not isinstance(place.owner, nn.Linear | nn.MultiheadAttention):
                raise TermError(
                    f"term {term!r} of layer {index} is a {type(place.owner).__name__} without a bias; "
                    "only nn.Linear layers can be given one."
                )
            add_bias(place.owner)
            changed.append(place)
    split_fused_biases(module, architecture, scope)
    added: list[nn.Parameter] = []
    for place in changed:
        assert place.bias is not None
        added.extend([place.bias] if place.layout is None else place.parts().values())
    return added


def resolve(terms: BiasTerms, selection: Iterable[str]) -> list[nn.Parameter]:
    """Return the bias vectors named by ``selection``.

    Args:
        terms: What the model has, from :func:`find_bias_terms`.
        selection: Names such as ``"value"`` (all layers), ``"value.3"`` (layer 3 only, 0-based) or ``"value.3.h5"``
            (head 5 of that layer, if :func:`set_heads_apart` has set it apart). Where terms are apart by tower,
            ``"value"`` is that of all towers, and ``"vision_model.value"`` that of one.

    Raises:
        TermError: If ``selection`` is empty or names something the model lacks.
    """
    parameters: dict[int, nn.Parameter] = {}
    for name in in_towers(selection, terms):
        term, layer, head = parsed(name)
        if term not in terms:
            known = ", ".join(terms) or "none at all (add_missing_biases gives it some)"
            hint = "" if role(term) in TERM_SYMBOLS else f" Term names are: {', '.join(TERM_SYMBOLS)}."
            raise TermError(f"the model has no {term!r} bias; the bias terms it has: {known}.{hint}")
        if layer is not None and layer not in terms[term]:
            raise TermError(f"{name!r} names no layer; layers of {term!r}: {min(terms[term])}..{max(terms[term])}.")
        biases = terms[term].values() if layer is None else [terms[term][layer]]
        chosen = [piece for bias in biases for piece in pieces(bias)]
        if head is not None:
            chosen = [_head(name, next(iter(biases)), head)]
        parameters.update((id(piece), piece) for piece in chosen)
    if not parameters:
        raise TermError(f"no bias term was named; the model has: {', '.join(terms) or 'none'}.")
    return list(parameters.values())


def _head(name: str, bias: nn.Parameter, head: int) -> nn.Parameter:
    if not isinstance(bias, HeadedBias):
        raise TermError(f"{name!r}: the heads of this bias are not set apart; set_heads_apart() does so.")
    if head >= len(bias.heads):
        raise TermError(f"{name!r} names no head; heads of that layer: h0..h{len(bias.heads) - 1}.")
    return bias.heads[head]


def freeze_except(
    module: nn.Module,
    terms: Iterable[str],
    *,
    keep: Iterable[str] = (),
    architecture: Architectures = None,
    scope: Scope = None,
) -> list[str]:
    """Freeze every parameter of ``module`` but the chosen bias terms.

    Fused biases are split first, and heads set apart in the layers of which single heads are named.

    Args:
        module: A model, or any module that contains one.
        terms: Names such as ``"value"``, ``"value.3"`` (a layer), ``"value.3.h5"`` (a head of it) or, in a scope of
            several submodules, ``"vision_model.value"``; may be empty if ``keep`` is not.
        keep: Names of further parameters to leave trainable, for example :func:`head_parameters`.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.
        scope: Names of the submodules to look at; by default everything.

    Returns:
        The names left trainable, in the order of ``module.named_parameters()``.

    Raises:
        TermError: If a term does not exist or nothing would be left trainable.
    """
    terms, keep = list(terms), set(keep)
    if terms:
        split_fused_biases(module, architecture, scope)
        set_heads_apart(module, filter(has_head, terms), architecture, scope)
    chosen = {id(bias) for bias in resolve(find_bias_terms(module, architecture, scope), terms)} if terms else set()
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
