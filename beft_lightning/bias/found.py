"""What discovery found, noted on the module that was watched, and stored in checkpoints.

A restored module needs no watching then, and its terms are the slices that were trained, whatever a later version of
this package or of transformers would find.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from beft_lightning.bias.architecture import Architecture, Fused, path_pattern
from beft_lightning.errors import ArchitectureError, CheckpointError
from beft_lightning.parameters import clean_name

#: A module's attribute: where the terms in it were found.
_FOUND = "beft_found"
#: A module's attribute: the record of a checkpoint, for a model that does not exist yet.
_OFFERED = "beft_found_record"

#: Name of a watched module -> its architectures as a user would write them, in plain types.
Record = Mapping[str, Sequence[Mapping[str, Any]]]


def note_found(module: nn.Module, found: Iterable[Architecture]) -> list[Architecture]:
    """Note on a module where its terms were found, and return it."""
    setattr(module, _FOUND, list(found))
    return noted(module) or []


def noted(module: nn.Module) -> list[Architecture] | None:
    """Return where the terms of a module were found; None if it was not watched."""
    return getattr(module, _FOUND, None)


def found_record(module: nn.Module) -> dict[str, list[dict[str, Any]]]:
    """Return what was found in a module and in those inside it, as the record of a checkpoint."""
    return {
        clean_name(name): [_to_dict(one) for one in found]
        for name, child in module.named_modules()
        if (found := noted(child)) is not None
    }


def offer_record(module: nn.Module, record: Record) -> None:
    """Keep a checkpoint's record on a module whose model does not exist yet; :func:`take_offered` takes it over."""
    setattr(module, _OFFERED, record)


def take_offered(module: nn.Module) -> None:
    """Take over the record that was kept on a module, if there is one.

    Raises:
        CheckpointError: As in :func:`restore_found`.
    """
    restore_found(module, getattr(module, _OFFERED, {}))


def restore_found(module: nn.Module, record: Record) -> None:
    """Note on the models in a module where the fit that wrote a checkpoint found their terms.

    Args:
        module: The module that the checkpoint is for.
        record: Its :func:`found_record`; empty in checkpoints of earlier versions.

    Raises:
        CheckpointError: If ``module`` has no layer at one of the paths.
    """
    children = {clean_name(name): child for name, child in module.named_modules()}
    for name, entries in record.items():
        found = architectures_of_record(entries)
        layers = [path.removeprefix(f"{name}." if name else "") for path in children if path.startswith(name)]
        for one in found:
            for term, path in one.paths.items():
                pattern = path_pattern(f"{one.layer}.{path}")
                if name not in children or not any(map(pattern.search, layers)):
                    place = ".".join(filter(None, (name, one.layer, path)))
                    raise CheckpointError(
                        f"the checkpoint belongs to another model: its fit found {term!r} at {place!r}, where this "
                        "model has no layer. Give the model it was trained with."
                    )
        note_found(children[name], found)


def architectures_of_record(entries: Iterable[Mapping[str, Any]]) -> list[Architecture]:
    """Return the architectures that the record of a checkpoint describes.

    Raises:
        ArchitectureError: If it describes none.
    """
    try:
        return [
            Architecture(
                entry["layer"],
                terms=dict(entry["terms"]),
                fused={path: Fused(**layout) for path, layout in entry["fused"].items()},
            )
            for entry in entries
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArchitectureError(f"no description of an architecture: {error!r}.") from error


def _to_dict(architecture: Architecture) -> dict[str, Any]:
    return {
        "layer": architecture.layer,
        "terms": dict(architecture.terms),
        "fused": {
            path: {"parts": dict(fused.parts), "groups": fused.groups, "bias": fused.bias}
            for path, fused in architecture.fused.items()
        },
    }
