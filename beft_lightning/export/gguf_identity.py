"""What was trained over a GGUF file, if the file holds all frozen weights to the bit: found without a model.

Loading the model takes transformers many times as long. Whatever is not plain here is left to the way over the model,
which then also says what is wrong.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from beft_lightning.bias.parametrized import MARK
from beft_lightning.checkpoint import FINGERPRINT_KEY, held_names
from beft_lightning.export.gguf_file import GGUFFile
from beft_lightning.fingerprint import identity, same_identity
from beft_lightning.models import DTYPES
from beft_lightning.strategies.internals.transformers import values_from_gguf

#: Names in a checkpoint are those in the LightningModule.
_PREFIX = "model."
#: Names of precisions in a fingerprint.
_PRECISIONS = {str(dtype): dtype for dtype in DTYPES.values()}
#: Tensors of a file that transformers computes itself.
_COMPUTED = frozenset({"rope_freqs.weight"})


def values_over_file(
    file: GGUFFile, names: Callable[[str], str | None], record: Mapping[str, Any], checkpoint: Mapping[str, Any]
) -> dict[str, Tensor] | None:
    """Return the trained values of a fit of bias terms over a file.

    Args:
        file: The fit's base, of an architecture without fused layers.
        names: Maps a name in the model to one in the file.
        record: The checkpoint's record of the model.
        checkpoint: Its content.

    Returns:
        The values in fp32 by their names in the model; None if the file is not seen to be the fit's base, or a value
        is not as it has to be.
    """
    held, frozen = held_names(checkpoint), checkpoint[FINGERPRINT_KEY]
    if any(MARK in name for name in (*held, *frozen)):
        return None
    places = {name: names(name.removeprefix(_PREFIX)) or "" for name in (*held, *frozen)}
    layers = {place.split(".")[1] for place in file.tensors if place.startswith("blk.")}
    if file.tensors.keys() - places.values() - _COMPUTED or len(layers) != file.number("block_count"):
        return None
    for name in held:
        value = checkpoint["state_dict"][name]
        if value.shape != _shape(file, places[name]) or not value.isfinite().all():
            return None
    for name, expected in frozen.items():
        here = _tensor(file, places[name], DTYPES[record["dtype"]])
        # Biases, layer norms and head are fp32, whatever the precision of the model.
        dtype = _PRECISIONS.get(expected[0])
        if here is None or dtype is None or not same_identity(expected, identity(here.to(dtype))):
            return None
    return {name.removeprefix(_PREFIX): checkpoint["state_dict"][name].float() for name in sorted(held)}


def _tensor(file: GGUFFile, place: str, dtype: torch.dtype) -> Tensor | None:
    """Return a tensor as transformers loads it, or the zeros of a bias that a fit has added; None if there is none."""
    if place not in file.tensors:
        shape = _shape(file, place)
        return None if shape is None else torch.zeros(shape)
    heads = {
        "num_attention_heads": file.number("attention.head_count"),
        "num_key_value_heads": file.number("attention.head_count_kv"),
    }
    return torch.tensor(values_from_gguf(file.values(place), place, file.architecture, heads), dtype=dtype)


def _shape(file: GGUFFile, place: str) -> tuple[int, ...] | None:
    """Return the shape of the bias of a layer; None if the place is none of a bias."""
    layer, _, kind = place.rpartition(".")
    weight = file.tensors.get(f"{layer}.weight")
    return weight.shape[:1] if weight is not None and kind == "bias" else None
