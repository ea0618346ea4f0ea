"""The format GGUF: the file of the base with the trained biases in it, for llama.cpp.

The weights stay as they are, in the file's own precision: a bias is a tensor of its own, always fp32.
"""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from beft_lightning.backbones import gguf_location
from beft_lightning.errors import ExportError
from beft_lightning.export.gguf_file import GGUFFile
from beft_lightning.export.gguf_identity import values_over_file
from beft_lightning.export.loading import load_trained, read_trained
from beft_lightning.models import QUANTIZED

_INPUTS = frozenset({"attn_q", "attn_k", "attn_v"})
#: Architecture in GGUF -> the layers whose bias llama.cpp adds if the file has one. Each entry was measured: a bias was
#: put into a file, and the probabilities of llama.cpp compared with those of transformers. Of another bias, llama.cpp
#: refuses the file.
READ_BIASES: Mapping[str, frozenset[str]] = {
    "llama": _INPUTS | {"attn_output", "ffn_gate", "ffn_up", "ffn_down"},
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "olmo2", "qwen2", "qwen3", "stablelm"), _INPUTS),
}
_CONVERTER = "python convert_hf_to_gguf.py FOLDER --outfile base.gguf"
#: Least cosine between weights in a file and those trained over: the coarsest quantization keeps more than this, and
#: other weights have about zero.
_SAME = 0.8


def prepare_gguf(
    checkpoint: str | Path, backbone: str | None = None, base_gguf: str | Path | None = None
) -> Callable[[Path], None]:
    """Express what was trained as tensors of the base's GGUF file.

    Args:
        checkpoint: The checkpoint, or the folder of an adapter.
        backbone: Location of the base now, if it is not where the fit found it.
        base_gguf: The base as a GGUF file, if the fit's base was none.

    Returns:
        The function that writes the file.

    Raises:
        ExportError: If the checkpoint is of no language model, its base is in no GGUF file, or llama.cpp has no place
            for something that was trained.
        CheckpointError: If the checkpoint is missing, damaged, not of a fit of this package, or of another base.
        BackboneError: If the base cannot be loaded.
    """
    record, content = read_trained(checkpoint, backbone)
    file = GGUFFile(_base_file(record, base_gguf))
    tensors = None
    if content is not None and base_gguf is None and file.architecture in READ_BIASES:
        values = values_over_file(file, _names(file), record, content)
        tensors = None if values is None else _placed(file, values)
    if tensors is None:
        _, model, trained = load_trained(checkpoint, backbone)
        tensors = gguf_biases(file, model, trained)
    return lambda path: file.write(path, tensors)


def _base_file(record: Mapping[str, Any], base_gguf: str | Path | None) -> Path:
    """Return the GGUF file of the base, if what was trained over it can have a place in one."""
    if record["auto_class"] != "AutoModelForCausalLM":
        raise ExportError(
            f"the format 'gguf' is for language models, and this is an {record['auto_class']}, whose head llama.cpp "
            "does not have: use 'hf' or 'peft'."
        )
    if base_gguf is not None:
        if record["dtype"] in QUANTIZED:
            raise ExportError(
                f"trained over weights that were quantized to {record['dtype']} as they were loaded, which no GGUF "
                "file holds: the biases make up for other errors than those of the file. Use 'hf' or 'peft', or "
                "train over the GGUF file (--model.gguf_file)."
            )
        if not Path(base_gguf).is_file():
            raise ExportError(f"--base_gguf {base_gguf}: no such file: give the GGUF file of the fit's base.")
        return Path(base_gguf)
    if record["gguf_file"] is None:
        raise ExportError(
            f"the fit's base {record['backbone']!r} is no GGUF file: give the same base as one (--base_gguf). "
            f"llama.cpp converts a folder of transformers: `{_CONVERTER}`."
        )
    return gguf_location(record["backbone"], record["gguf_file"])


def gguf_biases(file: GGUFFile, model: PreTrainedModel, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Express trained biases as tensors of a GGUF file.

    Args:
        file: The file of the base.
        model: The base, unchanged.
        trained: Trained values by their names in ``model``.

    Returns:
        The tensors by their names in the file, fp32. Those of names that are in the file replace them.

    Raises:
        ExportError: If the file is of another base, or has no place for something that was trained.
    """
    _check_same_base(file, model, trained)
    return _placed(file, trained)


def _placed(file: GGUFFile, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return trained biases by their names in a file.

    Raises:
        ExportError: If it has no place for something that was trained.
    """
    names = _names(file)
    tensors: dict[str, Tensor] = {}
    for name, value in trained.items():
        place = names(name)
        if place is None or not place.endswith(".bias"):
            raise ExportError(
                f"the format 'gguf' holds biases beside the base's weights, and {name!r}, which was trained, is none "
                f"or has no place in a file of the architecture {file.architecture!r}: use 'hf', and convert its "
                f"folder with llama.cpp's converter: `{_CONVERTER}`."
            )
        if place not in file.tensors and place.split(".")[-2] not in READ_BIASES.get(file.architecture, ()):
            raise ExportError(_no_place(file.architecture, name))
        tensors[place] = _ordered(file, place, value)
    return tensors


def _no_place(architecture: str, name: str) -> str:
    known = READ_BIASES.get(architecture)
    terms = (
        "which biases it adds has not been checked" if known is None else f"it adds those of {', '.join(sorted(known))}"
    )
    return (
        f"llama.cpp has no place for {name!r}, which was added and trained, in a model of the architecture "
        f"{architecture!r}: {terms}. Use the format 'peft' or 'hf'."
    )


def _names(file: GGUFFile) -> Callable[[str], str | None]:
    """Return the mapping of names in a model of transformers to names in the file."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    numbers = {name: number for number, name in MODEL_ARCH_NAMES.items()}
    if file.architecture not in numbers:
        raise ExportError(f"{file.path}: the package gguf does not know the architecture {file.architecture!r}.")
    names = get_tensor_name_map(numbers[file.architecture], file.number("block_count") or 0)
    return lambda name: names.get_name(name, try_suffixes=(".weight", ".bias"))


def _ordered(file: GGUFFile, place: str, bias: Tensor) -> Tensor:
    """Return a bias in the order of outputs that llama.cpp has.

    It pairs the two halves of each head's query and key that are turned together, for LLaMA; and has all queries before
    all keys in the fused layers of GPT-NeoX and BLOOM.
    """
    layer = place.split(".")[-2]
    heads = file.number("attention.head_count") or 1
    if file.architecture == "llama" and layer in ("attn_q", "attn_k"):
        heads = heads if layer == "attn_q" else file.number("attention.head_count_kv") or heads
        return bias.view(heads, 2, -1).transpose(1, 2).flatten()
    if file.architecture in ("gptneox", "bloom") and layer == "attn_qkv":
        return bias.view(heads, 3, -1).transpose(0, 1).flatten()
    return bias


def _check_same_base(file: GGUFFile, model: PreTrainedModel, trained: Collection[str]) -> None:
    """Check that the weights in a file are those that were trained over, up to their quantization.

    Raises:
        ExportError: If a layer is missing or has other weights, or a bias that was trained began from another one.
    """
    names = _names(file)
    layers, ours = file.number("block_count"), model.config.num_hidden_layers
    if layers != ours:
        raise ExportError(f"{file.path}: a model of {layers} layers, and the fit's base has {ours}: another model.")
    for name, weight in model.named_parameters():
        place = names(name) or ""
        if name in trained and place.endswith(".bias") and place in file.tensors:
            began = _ordered(file, place, weight.detach().float())
            if not torch.allclose(began, torch.from_numpy(file.values(place)), rtol=1e-2):
                raise ExportError(
                    f"{file.path}: the bias {place!r} is not the one of the fit's base: give the file of that base."
                )
        if not place.endswith("attn_output.weight") or weight.dim() != 2:
            continue
        found = file.values(place) if place in file.tensors else np.zeros(0)
        # GPT-2 has its weights the other way round.
        transposed = isinstance(model.get_submodule(name.removesuffix(".weight")), Conv1D)
        trained_over = (weight.T if transposed else weight).detach().float().numpy()
        if found.shape != trained_over.shape or _cosine(found, trained_over) < _SAME:
            raise ExportError(f"{file.path}: the weights of {name!r} are not those of the fit's base: another model.")


def _cosine(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    return float((one * other).sum() / (np.linalg.norm(one) * np.linalg.norm(other) + 1e-30))
