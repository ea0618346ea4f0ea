"""An adapter of PEFT's ``BeftConfig``, by whoever made it, as the source of an export or an evaluation."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from beft_lightning.bias.fused import bias_name
from beft_lightning.bias.structure import add_biases
from beft_lightning.errors import CheckpointError
from beft_lightning.export.peft import ADAPTER_CONFIG, TASK_TYPES, adapter_base, add_adapter, read_values
from beft_lightning.export.task_file import read_record


def is_adapter(path: str | Path) -> bool:
    """Return whether a path is the folder of an adapter of PEFT."""
    return (Path(path) / ADAPTER_CONFIG).is_file()


def adapter_record(folder: Path, backbone: str | None = None) -> dict[str, Any]:
    """Return the record of the model of an adapter, with the entries that a checkpoint has.

    Args:
        folder: The folder of the adapter. Without the file of the task that ``export`` writes, the record has no task.
        backbone: Location of the base now, if it is not where the adapter says.

    Raises:
        CheckpointError: If the adapter is damaged, of another kind, or does not say which task it is for.
    """
    base = adapter_base(folder)
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    classes = [name for name, task_type in TASK_TYPES.items() if task_type == config.get("task_type")]
    if not classes:
        raise CheckpointError(
            f"{folder / ADAPTER_CONFIG}: task_type is {config.get('task_type')!r}, which does not say which head the "
            f"model has: set it to one of {', '.join(TASK_TYPES.values())}."
        )
    outputs = [len(tensor) for tensor in read_values(folder)[1].values() if tensor.dim() == 2]
    inferred: dict[str, Any] = {
        "auto_class": classes[0],
        "backbone": backbone or base,
        "gguf_file": None,
        "random_init": False,
        "dtype": "float32",
        "tune": "auto",
        "tune_options": {},
        "num_labels": min(outputs, default=None) if classes[0] != "AutoModelForCausalLM" else None,
        "problem_type": None,
        "labels": [],
    }
    return inferred | (read_record(folder) or {})


@torch.no_grad()
def adapter_values(model: PreTrainedModel, folder: Path) -> dict[str, Tensor]:
    """Return what the parameters that an adapter changes are with it, by their names in the base, fp32.

    Args:
        model: The base. It is as before afterwards.
        folder: The folder of the adapter.

    Raises:
        CheckpointError: If the adapter holds nothing, or is damaged, not finite, or of another model.
    """
    layers, head = read_values(folder)
    names = [*(f"{layer}.bias" for layer in layers), *head]
    if not layers:
        raise CheckpointError(f"{folder}: an adapter without a bias.")
    before = {name: p.detach().clone() for name, p in model.named_parameters() if name in names}
    added = add_biases(model, names)
    add_adapter(model, folder)
    values = {name: model.get_parameter(name).detach().float().clone() for name in names}
    for name, value in before.items():
        model.get_parameter(name).copy_(value)
    for owner in added:
        owner.register_parameter(bias_name(owner), None)
    if bad := [name for name, value in values.items() if not value.isfinite().all()]:
        raise CheckpointError(f"{folder}: the trained values of {bad[0]} are not finite; the fit has diverged.")
    return values
