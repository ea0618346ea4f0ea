"""The format of PEFT's ``BeftConfig``: an adapter beside the unchanged base.

The two files are written here, not by ``PeftModel.save_pretrained``: peft is not needed to export, and it would wrap
the model, add a model card, and write a longer configuration whose target modules have no fixed order.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from beft_lightning.errors import ExportError
from beft_lightning.models import resolve_backbone

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
    inside = {name: value for name, value in trained.items() if name.startswith(base) or model.base_model is model}
    heads = list(dict.fromkeys(name.partition(".")[0] for name in trained if name not in inside))
    deltas = {name.removesuffix(".bias"): _delta(model, name, value) for name, value in inside.items()}
    if not deltas:
        raise ExportError("PEFT's BEFT adapters need a bias, and only the head was trained: use the format 'hf'.")
    tensors = {f"{path}.beft_bias": delta for path, delta in deltas.items()}
    for head in heads:
        for name, value in model.get_submodule(head).state_dict(prefix=f"{head}.").items():
            tensors[name] = trained.get(name, value)
    config = {"target_modules": list(deltas), "modules_to_save": heads or None}
    return config, {f"base_model.model.{name}": value.float().contiguous() for name, value in tensors.items()}


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
    config = {
        "peft_type": "BEFT",
        "task_type": TASK_TYPES.get(record["auto_class"]),
        "base_model_name_or_path": resolve_backbone(record["backbone"]),
        "inference_mode": True,
        **modules,
    }

    def write(folder: Path) -> None:
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    return write
