"""Biases that a backbone has stored, and that a model of its configuration has no place for."""

from collections.abc import Iterable
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel

from beft_lightning.errors import BackboneError
from beft_lightning.gguf_header import GGUFHeader
from beft_lightning.strategies.internals.transformers import names_in_gguf

_BIAS = ".bias"


def check_stored_biases(backbone: str, model: PreTrainedModel, unused: Iterable[str]) -> None:
    """Check that no stored bias of a layer was left out as the backbone was loaded.

    transformers loads the model without, and only logs their names. Weights of other heads are left out rightly:
    the model has no such layers.

    Args:
        backbone: The name of the backbone, for the message.
        model: The loaded model.
        unused: Names of the stored tensors that are not in the model.

    Raises:
        BackboneError: If there is one.
    """
    prefix = f"{model.base_model_prefix}."
    layers = {path.removeprefix(prefix): child for path, child in model.named_modules()}
    lost = [
        name
        for name in sorted(unused)
        if name.endswith(_BIAS) and _has_no_bias(layers.get(name.removesuffix(_BIAS).removeprefix(prefix)))
    ]
    if lost:
        switches = [name for name in ("attention_bias", "mlp_bias", "bias") if hasattr(model.config, name)]
        remedy = (
            f"Set {' or '.join(switches)} to true in its config.json"
            if switches
            else "Use a backbone of a model type with these biases"
        )
        raise BackboneError(
            f"backbone {backbone!r} holds {len(lost)} biases that a {model.config.model_type} model of its "
            f"configuration has no place for, for example {lost[0]!r}: without them it computes something else. "
            f"{remedy} (a GGUF file has to be converted to a folder of transformers first)."
        )


def _has_no_bias(layer: nn.Module | None) -> bool:
    return layer is not None and isinstance(getattr(layer, "weight", None), nn.Parameter) and layer.bias is None


def unused_gguf_biases(model: PreTrainedModel, path: Path) -> list[str]:
    """Return the biases in a GGUF file that a model of transformers has not taken, by their layers' names in it.

    Args:
        model: The loaded model.
        path: The file.
    """
    stored = [name for name in GGUFHeader(path).tensors if name.endswith(_BIAS)]
    if not stored:  # what follows takes seconds
        return []
    places = names_in_gguf(model)
    layers = (places.get(f"{name.removesuffix(_BIAS)}.weight") for name in stored if name not in places)
    return [f"{layer.removesuffix('.weight')}{_BIAS}" for layer in layers if layer is not None]
