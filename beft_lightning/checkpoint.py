"""The checkpoint format: its keys, how a file is read, and how it is checked against a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from beft_lightning.errors import CheckpointError
from beft_lightning.parameters import full_tensor, named_parameters

#: Where the identity of the frozen model stands in a checkpoint.
FINGERPRINT_KEY = "beft_fingerprint"
#: Names of the trained parameters, in the order of the optimizer's state.
TRAINED_KEY = "beft_trained"
#: Where a checkpoint says how its model is made, so that no configuration is needed to make it again.
MODEL_KEY = "beft_model"
RNG_KEY = "beft_rng"
#: The file with everything but the optimizer's state in a checkpoint that is a folder (DeepSpeed).
ADAPTER_FILE = "adapter.ckpt"


def checkpoint_file(path: str | Path) -> Path:
    """The file with the trained values: the checkpoint itself, or one inside it (DeepSpeed).

    Raises:
        CheckpointError: If the path is a folder without such a file.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    if not (path / ADAPTER_FILE).is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint file, but a folder without {ADAPTER_FILE}. Where a strategy writes a folder, "
            "give the folder that a fit with BiasSelectionCallback or AdapterCheckpoint has left."
        )
    return path / ADAPTER_FILE


def local_file(path: Any) -> Any:
    """The file in a checkpoint that is a local folder; any other path as it is."""
    return checkpoint_file(path) if Path(path).is_dir() else path


def trainable_names(module: nn.Module) -> list[str]:
    """Names of the parameters being trained, in the module's order."""
    return [name for name, parameter in named_parameters(module) if parameter.requires_grad]


def fingerprint(module: nn.Module) -> dict[str, Any]:
    """What tells one model from another: the precision and a few values of each tensor."""
    return {name: _sample(parameter) for name, parameter in module.named_parameters()}


def check_fingerprint(saved: Mapping[str, list[Any]], here: Mapping[str, list[Any]], trained: set[str]) -> None:
    """Refuse a checkpoint that was trained over other frozen weights than this run's.

    Args:
        saved: The :func:`fingerprint` of the frozen weights when the checkpoint was written.
        here: The fingerprint of the module that the checkpoint has been loaded into.
        trained: Names of the parameters that the checkpoint holds.

    Raises:
        CheckpointError: If parameters are missing on either side, or values differ by more than their precision.
    """
    if unknown := [name for name in here if name not in saved and name not in trained]:
        raise CheckpointError(
            f"the checkpoint belongs to another model: it says nothing about {unknown[0]!r}, which this model has. "
            "Give the backbone, task and head it was trained with."
        )
    for name, (dtype, *values) in saved.items():
        if name not in here:
            raise CheckpointError(
                f"the checkpoint belongs to another model: that one has {name!r}, which this model lacks. "
                "Give the backbone it was trained on."
            )
        dtype_here, *values_here = here[name]
        # bf16 keeps 8 bits of a number: the same weights in another precision pass.
        tolerance = 0.0 if dtype == dtype_here else 1e-2
        if not np.allclose(values_here, values, rtol=tolerance, atol=1e-4 * tolerance):
            raise CheckpointError(
                f"the checkpoint belongs to another model of the same shape: its frozen {name!r} differs from this "
                "model's. Give the backbone it was trained on (a randomly initialised one needs the same seed)."
            )


def _sample(parameter: nn.Parameter) -> list[Any]:
    values = full_tensor(parameter).flatten()
    # Evenly spread, and away from the first row of an embedding, which often is the zeros of the padding token.
    places = [(len(values) - 1) * quarter // 4 for quarter in range(1, 5)]
    return [str(parameter.dtype), *values[places].float().cpu().tolist()]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of any strategy without running any code from it.

    Raises:
        CheckpointError: If it is missing, unreadable, or no Lightning checkpoint.
    """
    path = checkpoint_file(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file. A fit leaves one in checkpoints/last.ckpt.")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken part raises
        raise CheckpointError(
            f"{path}: not a readable checkpoint (damaged, cut short, or holding more than tensors and plain types, "
            f"which is never executed): {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise CheckpointError(f"{path}: a file of torch, but not a Lightning checkpoint (it has no 'state_dict').")
    return checkpoint


def check_state_dict(module: nn.Module, state_dict: Mapping[str, Any], *args: Any) -> None:
    """Refuse a state that names tensors the module lacks, or gives them another shape.

    Args:
        module: The module to load into.
        state_dict: Some of its tensors.
        args: What torch passes on to hooks of ``load_state_dict``.

    Raises:
        CheckpointError: If a name or a shape does not fit, or nothing is there.
    """
    known = module.state_dict()
    if not state_dict:
        raise CheckpointError("the checkpoint holds no trained tensors.")
    for name, tensor in state_dict.items():
        if name not in known:
            raise CheckpointError(
                f"the checkpoint belongs to another model: it holds {name!r}, which this model lacks. "
                "Give the backbone, task and `tune` it was trained with."
            )
        if known[name].shape != tensor.shape:
            raise CheckpointError(
                f"the checkpoint belongs to another model: {name!r} has shape {tuple(tensor.shape)} there and "
                f"{tuple(known[name].shape)} here. Give the backbone and task it was trained with."
            )
