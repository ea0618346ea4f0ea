"""The modules that own bias terms: found in a model by the paths of its architecture."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from beft_lightning.bias.architecture import Architecture, Architectures, Fused, path_pattern
from beft_lightning.bias.fused import fused_parts
from beft_lightning.bias.lookup import architecture_stacks, pretrained_model
from beft_lightning.errors import ArchitectureError, TermError
from beft_lightning.parameters import clean_name

_Layers = TypeVar("_Layers")


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
        for term, layers in places_of(module, architecture).items()
    }


def places_of(module: nn.Module, architecture: Architectures) -> dict[str, dict[int, Place]]:
    """Return the places of each term's bias: term -> layer index -> place."""
    root = pretrained_model(module) if architecture is None else module
    stacks: dict[str, list[tuple[str, dict[int, Place]]]] = {}
    for one in architecture_stacks(module, architecture):
        for term, found in _stacks(root, one).items():
            for path, layers in found.items():
                known = stacks.setdefault(term, [])
                # Layers of one stack whose attention goes by several names in turn keep their index.
                same = next((other for stack, other in known if stack == path and not other.keys() & layers), None)
                if same is None:
                    known.append((path, layers))
                else:
                    same.update(layers)
    return {term: _counted_on([layers for _, layers in found]) for term, found in stacks.items()}


def _stacks(root: nn.Module, known: Architecture) -> dict[str, dict[str, dict[int, Place]]]:
    """Return the stacks of layers that an architecture describes: term -> path of a stack -> index in it -> place."""
    paths = known.paths
    layouts = {term: fused for fused in known.fused.values() for term in fused.parts}
    patterns = {term: path_pattern(f"{known.layer}.{path}") for term, path in paths.items()}
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
    return stacks


def _ambiguous(term: str, index: int, name: str) -> ArchitectureError:
    return ArchitectureError(
        f"term {term!r} has two modules for layer {index} (one is {name!r}); "
        "give a more specific `architecture.layer`, or only the part of the model to tune."
    )


def owners_of(
    terms: Iterable[str], module: nn.Module, architecture: Architectures = None
) -> dict[str, dict[int, nn.Module]]:
    """Return the same as :func:`bias_owners` for chosen terms alone.

    Raises:
        ArchitectureError: As there.
        TermError: If the architecture has no such term.
    """
    return chosen(terms, bias_owners(module, architecture))


def chosen(terms: Iterable[str], known: Mapping[str, _Layers]) -> dict[str, _Layers]:
    """Return the entries of ``terms``.

    Raises:
        TermError: If there is none of a term.
    """
    terms = list(terms)
    if unknown := [term for term in terms if term not in known]:
        raise TermError(f"no term {unknown[0]!r} in this model; it can have: {', '.join(known)}.")
    return {term: known[term] for term in terms}


def _counted_on(stacks: list[dict[int, Place]]) -> dict[int, Place]:
    """Return the layers of several stacks, numbered one stack after the other."""
    layers: dict[int, Place] = {}
    for stack in stacks:
        first = max(layers, default=-1) + 1
        layers |= {first + index: stack[index] for index in sorted(stack)}
    return layers
