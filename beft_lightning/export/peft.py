"""The format of PEFT's ``BeftConfig``: an adapter beside the unchanged base.

The two files are written here, not by ``PeftModel.save_pretrained``: peft is not needed to export, and it would wrap
the model, add a model card, and write a longer configuration whose target modules have no fixed order.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from beft_lightning.bias.heads import head_parameters
from beft_lightning.bias.structure import add_biases
from beft_lightning.errors import CheckpointError, ExportError
from beft_lightning.processors import load_processor

ADAPTER_CONFIG, ADAPTER_VALUES = "adapter_config.json", "adapter_model.safetensors"
#: What PEFT puts before the names of the model's modules, and the name of the vector it adds to a layer's output.
_PREFIX, _BIAS = "base_model.model.", "beft_bias"
#: The first version of PEFT with this kind of adapter.
_SINCE = "0.20.0"
#: Class of a model -> PEFT's name for its task, where it has one.
TASK_TYPES: Mapping[str, str] = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForCausalLM": "CAUSAL_LM",
}


def peft_adapter(model: PreTrainedModel, trained: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Express trained values as PEFT's ``BeftConfig`` keeps them (peft 0.20 or newer).

    PEFT adds a vector to the output of a linear layer, so that a bias is stored as its difference from the base's;
    the modules of the head are stored whole.

    Args:
        model: The base, unchanged.
        trained: Trained values by their names in ``model``; biases it lacks count from zero.

    Returns:
        The entries of ``adapter_config.json`` that name modules, and the tensors of ``adapter_model.safetensors``, all
        fp32; those of biases have the shape ``(1, outputs)``.

    Raises:
        ExportError: If something was trained that is neither the bias of a linear layer nor part of the head.
    """
    base = f"{model.base_model_prefix}."
    outside = head_parameters(model) if model.base_model is model else [n for n in trained if not n.startswith(base)]
    inside = {name: value for name, value in trained.items() if name not in outside}
    heads = list(dict.fromkeys(name.partition(".")[0] for name in trained if name not in inside))
    deltas = {name.removesuffix(".bias"): _delta(model, name, value) for name, value in inside.items()}
    if not deltas:
        raise ExportError("PEFT's BEFT adapters need a bias, and only the head was trained: use the format 'hf'.")
    tensors = {f"{path}.{_BIAS}": delta for path, delta in deltas.items()}
    for head in heads:
        for name, value in model.get_submodule(head).state_dict(prefix=f"{head}.").items():
            tensors[name] = trained.get(name, value)
    config = {"target_modules": list(deltas), "modules_to_save": heads or None}
    return config, {f"{_PREFIX}{name}": value.float().contiguous() for name, value in tensors.items()}


def _delta(model: PreTrainedModel, name: str, value: Tensor) -> Tensor:
    """Return the difference of a trained bias from the base's, shape ``(1, outputs)``."""
    path, _, kind = name.rpartition(".")
    owner = model.get_submodule(path)
    if kind != "bias" or not isinstance(owner, nn.Linear):
        raise ExportError(
            f"PEFT's BEFT adapters hold biases of linear layers and whole heads, and {name!r}, which was trained, "
            f"is neither (it belongs to a {type(owner).__name__}): use the format 'hf'."
        )
    before = torch.zeros_like(value) if owner.bias is None else owner.bias.detach().float()
    return (value - before).unsqueeze(0)


def prepare_peft(
    record: Mapping[str, Any], model: PreTrainedModel, trained: Mapping[str, Tensor], dtype: str
) -> Callable[[Path], None]:
    """Express what was trained as an adapter.

    Args:
        record: The checkpoint's record of the model.
        model: The base, unchanged.
        trained: Trained values by their names in ``model``.
        dtype: Not used: adapters are fp32.

    Returns:
        The function that writes the adapter's files into a folder.

    Raises:
        ExportError: If something was trained that is neither the bias of a linear layer nor part of the head.
    """
    modules, tensors = peft_adapter(model, trained)
    processor = load_processor(record.get("task", {}).get("kind"), record["backbone"], record["gguf_file"])
    config = {
        "peft_type": "BEFT",
        "task_type": TASK_TYPES.get(record["auto_class"]),
        # As the user wrote it: where a package is installed means nothing on another machine.
        "base_model_name_or_path": record["backbone"],
        "inference_mode": True,
        "peft_version": _SINCE,
        **modules,
    }

    def write(folder: Path) -> None:
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        processor.save_pretrained(folder)
        save_file(tensors, folder / ADAPTER_VALUES, metadata={"format": "pt"})

    return write


def adapter_base(folder: Path) -> str:
    """Return the location of the base of an adapter.

    Raises:
        CheckpointError: If the adapter is of another kind, or does not say so.
    """
    path = folder / ADAPTER_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        kind, base = config["peft_type"], config["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not a configuration of an adapter ({type(error).__name__}: {error})."
        ) from error
    if kind != "BEFT" or not isinstance(base, str):
        raise CheckpointError(f"{path}: an adapter of the type {kind!r} over {base!r}; BEFT over a base is needed.")
    return base


def read_values(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read the values of an adapter.

    Args:
        folder: The folder of the adapter.

    Returns:
        Path of a layer -> the difference of its bias from the base's, shape ``(outputs,)``; and the names of the
        head's parameters -> their values.

    Raises:
        CheckpointError: If the values are missing or damaged.
    """
    path = folder / ADAPTER_VALUES
    try:
        # Not mapped into memory: a file that is cut short meanwhile would end the process. Its order is not the same
        # each time.
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in sorted(load(path.read_bytes()).items())}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not readable ({error}).") from error
    deltas = {name.removesuffix(f".{_BIAS}"): t.squeeze(0) for name, t in tensors.items() if name.endswith(_BIAS)}
    return deltas, {name: tensor for name, tensor in tensors.items() if not name.endswith(_BIAS)}


@torch.no_grad()
def add_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Add the biases and the head of an adapter to its base: the inverse of :func:`peft_adapter`.

    Args:
        model: The base; changed in place.
        folder: The folder of the adapter.

    Raises:
        CheckpointError: If the adapter's values are missing, damaged, or of another model.
    """
    layers, heads = read_values(folder)
    deltas = {f"{layer}.bias": delta for layer, delta in layers.items()}
    add_biases(model, deltas)
    parameters = dict(model.named_parameters())
    for name, tensor in {**deltas, **heads}.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            shape = tuple(tensor.shape)
            raise CheckpointError(f"{folder / ADAPTER_VALUES}: of another model: it holds {name!r} of shape {shape}.")
        parameters[name].copy_(tensor + parameters[name].float() if name in deltas else tensor)
