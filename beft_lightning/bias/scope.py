"""The part of a module that is looked at: one or more of its submodules, its towers."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from beft_lightning.bias.architecture import Architecture, Architectures
from beft_lightning.bias.found import noted
from beft_lightning.bias.lookup import architecture_stacks, architectures_of, outermost_models, pretrained_model
from beft_lightning.errors import ArchitectureError, NoAttentionError
from beft_lightning.parameters import clean_name

#: Names of the submodules to look at, one or several; None for everything.
Scope = str | Sequence[str] | None


@dataclass(frozen=True)
class Tower:
    """A part of a module whose terms are looked at.

    Args:
        prefix: What the names of its terms begin with: nothing, or ``vision_model.`` where there are several towers.
        part: The submodule that its terms are in.
        root: The module, around it or in it, that the paths of the architectures start at.
        stacks: An architecture for each stack of layers in ``root``.
        name: The name in the scope; empty if there is none.
    """

    prefix: str
    part: nn.Module
    root: nn.Module
    stacks: Sequence[Architecture]
    name: str = ""


def towers(module: nn.Module, architecture: Architectures = None, scope: Scope = None) -> list[Tower]:
    """Return the parts of a module that a scope names; without one, all that there is as one.

    Args:
        module: A model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.
        scope: Names of submodules.

    Raises:
        ArchitectureError: If the scope names none, or nothing is known of the model.
    """
    parts = scoped(module, scope)
    if not parts:
        root = pretrained_model(module) if architecture is None else module
        return [Tower("", root, root, architecture_stacks(module, architecture))]
    found = []
    for name, part in parts.items():
        root = _model_around(module, part) if architecture is None else module
        prefix = f"{name}." if len(parts) > 1 else ""
        found.append(Tower(prefix, part, root, architecture_stacks(root, architecture), name))
    return found


def scoped(module: nn.Module, scope: Scope) -> dict[str, nn.Module]:
    """Return the submodules that a scope names, by these names.

    A name may lack its beginning, if only one submodule's name ends so: ``vision_model`` for ``net.vision_model``.

    Raises:
        ArchitectureError: If a name is of no submodule or of several, or one submodule is or holds another.
    """
    names = [scope] if isinstance(scope, str) else list(scope or ())
    parts = {name: _submodule(module, name) for name in names}
    for name, part in parts.items():
        for other, holder in parts.items():
            if name != other and _holds(holder, part):
                raise ArchitectureError(
                    f"scope names {name!r} and {other!r}, of which one is or holds the other: name one of the two."
                )
    return parts


def _submodule(module: nn.Module, name: str) -> nn.Module:
    everything = {clean_name(path): child for path, child in module.named_modules(remove_duplicate=False) if path}
    if name in everything:
        return everything[name]
    ending: dict[nn.Module, str] = {}
    for path, child in everything.items():
        if name and path.endswith(f".{name}"):
            ending.setdefault(child, path)
    if len(ending) == 1:
        return next(iter(ending))
    if ending:
        raise ArchitectureError(
            f"scope names {name!r}, which {len(ending)} submodules of {type(module).__name__} are called: name one of "
            f"{', '.join(ending.values())}."
        )
    raise ArchitectureError(
        f"scope names {name!r}, and {type(module).__name__} has no such submodule; those with layers in them: "
        f"{', '.join(_with_layers(module)) or 'none'}."
    )


def _with_layers(module: nn.Module) -> list[str]:
    """Return the names of the submodules that hold lists of layers."""
    lists = [path for path, child in module.named_modules() if isinstance(child, nn.ModuleList)]
    outer = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    holders = {path.rsplit(".", count)[0] for path in outer for count in range(1, path.count(".") + 1)}
    return sorted(map(clean_name, holders))


def _model_around(module: nn.Module, part: nn.Module) -> nn.Module:
    """Return the transformers model that a submodule is a part of; else the one that it contains.

    Where models hold each other, it is the outermost whose terms are found.
    """
    around = [model for model in module.modules() if isinstance(model, PreTrainedModel) and _holds(model, part)]
    if not around:
        return pretrained_model(part)
    for model in around:
        if noted(model) is not None:
            return model
    problems = []
    for model in around:
        try:
            architectures_of(model)
        except ArchitectureError as error:
            problems.append(error)
        else:
            return model
    raise problems[0]


def _holds(module: nn.Module, part: nn.Module) -> bool:
    return any(part is child for child in module.modules())


def models_in(module: nn.Module, scope: Scope = None) -> list[PreTrainedModel]:
    """Return the transformers models in or around the submodules that a scope names; without one, the one to tune.

    Raises:
        ArchitectureError: If there is none.
    """
    parts = scoped(module, scope).values()
    models = outermost_models(module).values()
    found = [model for model in models if any(_holds(model, part) or _holds(part, model) for part in parts)]
    return found or [pretrained_model(module)]


def must_be_watched(module: nn.Module, scope: Scope = None) -> bool:
    """Return whether some of what a scope names has no transformers model in or around it."""
    models = outermost_models(module).values()
    parts = scoped(module, scope).values() or [module]
    return not all(any(_holds(model, part) or _holds(part, model) for model in models) for part in parts)


def unknown_models(module: nn.Module, scope: Scope = None) -> dict[str, ArchitectureError]:
    """Return the transformers models in or around a scope that neither the table nor a twin explains.

    Models that have not been looked for yet are, by small twins, and what is found is noted on them.

    Returns:
        Name of the model -> why.

    Raises:
        NoAttentionError: If a twin shows no attention.
        ArchitectureError: If the scope names no submodule, or there are several models to choose from.
    """
    names = {model: name for name, model in outermost_models(module).items()}
    unknown: dict[str, ArchitectureError] = {}
    for part in list(scoped(module, scope).values()) or models_in(module):
        try:
            _model_around(module, part)
        except NoAttentionError:
            raise
        except ArchitectureError as error:
            unknown |= {name: error for model, name in names.items() if _holds(model, part) or _holds(part, model)}
    return unknown


def inert_terms(module: nn.Module, architecture: Architectures = None, scope: Scope = None) -> tuple[str, ...] | None:
    """Return the terms that cannot change what ``module`` computes; None if that is unknown.

    Args:
        module: A model, or any module that contains one.
        architecture: Where the terms are; by default looked up by the model's type, or found by watching it.
        scope: Names of the submodules to look at; by default everything.
    """
    inert: dict[str, None] = {}
    for tower in towers(module, architecture, scope):
        for one in tower.stacks:
            if one.inert is None:
                return None
            inert |= dict.fromkeys(f"{tower.prefix}{term}" for term in one.inert)
    return tuple(inert)
