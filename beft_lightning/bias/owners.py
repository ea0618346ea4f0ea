"""The modules that own bias terms: found in a model by the paths of its architecture."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from torch import nn

from beft_lightning.bias.architecture import Architecture, Architectures, Fused, path_pattern
from beft_lightning.bias.fused import fused_parts, own_parameter
from beft_lightning.bias.names import in_towers
from beft_lightning.bias.scope import Scope, Tower, towers
from beft_lightning.errors import ArchitectureError, TermError
from beft_lightning.parameters import clean_name

_Layers = TypeVar("_Layers")


@dataclass(frozen=True)
class Place:
    """Where one layer's bias of a term is, or could be.

    Args:
        owner: The module that owns it.
        layout: How the module orders several terms; None where the bias is of one term alone.
        tied: Further modules whose bias is the same parameter.
        head_width: Number of values of a head, if the architecture says so.
    """

    owner: nn.Module
    layout: Fused | None = None
    tied: list[nn.Module] = field(default_factory=list)
    head_width: int | None = None

    @property
    def name(self) -> str:
        """The name of the owner's bias."""
        return self.layout.bias if self.layout else "bias"

    @property
    def bias(self) -> nn.Parameter | None:
        """The whole bias of the owner, be it of one term or several."""
        bias: nn.Parameter | None = getattr(self.owner, self.name, None)
        return bias

    def parts(self) -> dict[str, nn.Parameter]:
        """The biases of the terms in the owner's fused one, or their heads."""
        return fused_parts(self.owner, self.layout)


def bias_owners(
    module: nn.Module, architecture: Architectures = None, scope: Scope = None
) -> dict[str, dict[int, nn.Module]]:
    """Return the modules that own, or could own, each term's bias: term -> layer index -> module.

    Args:
        module: A model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.
        scope: Names of the submodules to look at; by default everything.

    Raises:
        ArchitectureError: If nothing is known of the model, or no module is where the architecture says.
    """
    return {
        term: {index: place.owner for index, place in layers.items()}
        for term, layers in places_of(module, architecture, scope).items()
    }


def places_of(
    module: nn.Module, architecture: Architectures = None, scope: Scope = None
) -> dict[str, dict[int, Place]]:
    """Return the places of each term's bias: term -> layer index -> place. Tied biases have one place.

    In a scope of several submodules, the terms of each are apart: ``vision_model.value``.
    """
    found: dict[str, dict[int, Place]] = {}
    known: dict[tuple[str, int], Place] = {}
    for tower in towers(module, architecture, scope):
        for term, stacks in _stacks_of(tower).items():
            layers = [_untied([stack[i] for i in sorted(stack)], term, known) for stack in stacks]
            if places := [place for stack in layers for place in stack]:
                found[f"{tower.prefix}{term}"] = dict(enumerate(places))
    return found


def _stacks_of(tower: Tower) -> dict[str, list[dict[int, Place]]]:
    """Return the places in a tower: term -> for each stack of layers, index in it -> place."""
    inside = {id(child) for child in tower.part.modules()}
    stacks: dict[str, list[tuple[str, dict[int, Place]]]] = {}
    for one in tower.stacks:
        for term, found in _stacks(tower, one, inside).items():
            for path, layers in found.items():
                known = stacks.setdefault(term, [])
                # Layers of one stack whose attention goes by several names in turn keep their order.
                same = next((other for stack, other in known if stack == path and not other.keys() & layers), None)
                if same is None:
                    known.append((path, layers))
                else:
                    same.update(layers)
    if not stacks:
        raise ArchitectureError(
            f"scope names {tower.name!r}, in which there is no bias term; in {type(tower.root).__name__} they are "
            f"looked for in the layers {', '.join(dict.fromkeys(repr(one.layer) for one in tower.stacks))}."
        )
    return {term: [layers for _, layers in found] for term, found in stacks.items()}


def _untied(places: Iterable[Place], term: str, known: dict[tuple[str, int], Place]) -> list[Place]:
    """Return the places whose bias is no other's; others are noted at the place that is ``known`` for their bias."""
    untied = []
    for place in places:
        first = known.setdefault((term, id(own_parameter(place.owner, place.name))), place)
        if first is place:
            untied.append(place)
        else:
            first.tied.append(place.owner)
    return untied


def _stacks(tower: Tower, known: Architecture, inside: Collection[int]) -> dict[str, dict[str, dict[int, Place]]]:
    """Return the stacks of layers that an architecture describes: term -> path of a stack -> index in it -> place.

    Args:
        tower: Where to look.
        known: The architecture.
        inside: The ids of the tower's modules.
    """
    paths = known.paths
    layouts = {term: fused for fused in known.fused.values() for term in fused.parts}
    patterns = {term: path_pattern(f"{known.layer}.{path}") for term, path in paths.items()}
    stacks: dict[str, dict[str, dict[int, Place]]] = {term: {} for term in paths}
    whole: dict[str, set[str]] = {term: set() for term in paths}
    for name, child in tower.root.named_modules():
        if tower.name and id(child) not in inside:
            continue
        path = clean_name(name)
        for term, pattern in patterns.items():
            if match := pattern.search(path):
                index, stack = int(match.group(1)), path[: match.start(1)]
                if match.start() == 0:
                    whole[term].add(stack)
                layers = stacks[term].setdefault(stack, {})
                if index in layers:
                    raise _ambiguous(term, index, name)
                layers[index] = Place(_plain(child), layouts.get(term), head_width=known.attention.head_width)
    for term, found in stacks.items():
        # A path from the root on means this one alone.
        if whole[term]:
            stacks[term] = found = {stack: layers for stack, layers in found.items() if stack in whole[term]}
        if len(found) > 1 and "*" not in known.layer:
            stack, layers = list(found.items())[1]
            raise _ambiguous(term, min(layers), f"{stack}{min(layers)}")
    missing = [term for term in stacks if not stacks[term]]
    if tower.name:  # It may be one of several towers, or a part of a layer.
        return {term: found for term, found in stacks.items() if found}
    if missing:
        raise ArchitectureError(
            f"{type(tower.root).__name__} has no module for {', '.join(map(repr, missing))} at "
            f"{', '.join(repr(f'{known.layer}.{paths[term]}') for term in missing)}. "
            "Correct the `architecture` mapping; `model.named_modules()` shows the paths."
        )
    return stacks


def _plain(layer: nn.Module) -> nn.Module:
    """Return the layer that adapters of peft's were put around."""
    while isinstance(base := getattr(layer, "base_layer", None), nn.Module):
        layer = base
    return layer


def _ambiguous(term: str, index: int, name: str) -> ArchitectureError:
    return ArchitectureError(
        f"term {term!r} has two modules for layer {index} (one is {name!r}); "
        "give a more specific `architecture.layer`, or a `scope` that names the submodule to tune, or several."
    )


def owners_of(
    terms: Iterable[str], module: nn.Module, architecture: Architectures = None, scope: Scope = None
) -> dict[str, dict[int, nn.Module]]:
    """Return the same as :func:`bias_owners` for chosen terms alone.

    Raises:
        ArchitectureError: As there.
        TermError: If the architecture has no such term.
    """
    return chosen(terms, bias_owners(module, architecture, scope))


def chosen(terms: Iterable[str], known: Mapping[str, _Layers]) -> dict[str, _Layers]:
    """Return the entries of ``terms``; a term without a tower is that of all towers.

    Raises:
        TermError: If there is none of a term.
    """
    terms = in_towers(terms, known)
    if unknown := [term for term in terms if term not in known]:
        raise TermError(f"no term {unknown[0]!r} in this model; it can have: {', '.join(known)}.")
    return {term: known[term] for term in terms}
