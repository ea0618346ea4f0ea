"""The format of transformers: a folder with the whole model, the trained values in it, and its processor."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from beft_lightning.errors import ExportError
from beft_lightning.export.merging import merge
from beft_lightning.models import DTYPES, QUANTIZED
from beft_lightning.processors import load_processor


def prepare_transformers(
    record: Mapping[str, Any], model: PreTrainedModel, trained: Mapping[str, Tensor], dtype: str
) -> Callable[[Path], None]:
    """Merge what was trained into the base.

    Args:
        record: The checkpoint's record of the model.
        model: The base; changed in place.
        trained: Trained values by their names in ``model``.
        dtype: The precision to store.

    Returns:
        The function that writes model and tokenizer, or other processor, into a folder.

    Raises:
        ExportError: If the weights are quantized and another precision is asked for, a value is not finite in that
            precision, or the model has no place for a bias.
    """
    quantized = record["dtype"] in QUANTIZED
    if quantized and dtype != record["dtype"]:
        raise ExportError(
            f"the weights were {record['dtype']} in the fit, and the export keeps them as they are: leave out the "
            "dtype."
        )
    if not quantized:
        _unpack(model)
    processor = load_processor(record.get("task", {}).get("kind"), record["backbone"], record["gguf_file"])
    merge(model, trained)
    if quantized:
        model.config.dtype = torch.float32  # of all that is not quantized
    else:
        _convert(model, DTYPES[dtype])
    _check_finite(model, dtype, trained.keys())

    def write(folder: Path) -> None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)

    return write


def _unpack(model: PreTrainedModel) -> None:
    """Take back the quantization of a model whose weights are plain again, as those from a GGUF file are."""
    if quantizer := getattr(model, "hf_quantizer", None):
        if not all(parameter.is_floating_point() for parameter in model.parameters()):
            raise ExportError("the base is held in quantized blocks, which no bias can be merged into: use 'peft'.")
        quantizer.remove_quantization_config(model)


def _convert(model: nn.Module, dtype: torch.dtype) -> None:
    model.to(dtype)


def _check_finite(model: nn.Module, dtype: str, trained: Collection[str]) -> None:
    """Check that a model's values are finite in the precision that it has now."""
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and not parameter.isfinite().all():
            whose = "trained " if name in trained else ""
            raise ExportError(f"the {whose}values of {name!r} are not all finite as {dtype}: choose another dtype.")
