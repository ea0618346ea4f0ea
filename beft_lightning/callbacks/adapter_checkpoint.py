"""Checkpoints that hold what was trained, and nothing else of the model."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.utils.hooks import RemovableHandle

from beft_lightning.errors import CheckpointError

#: Where the identity of the frozen model stands in a checkpoint.
FINGERPRINT_KEY = "beft_fingerprint"
RNG_KEY = "beft_rng"


class AdapterCheckpoint(Callback):
    """Leave frozen weights out of every checkpoint, and refuse a checkpoint that does not fit the model.

    A checkpoint holds the trained parameters, the buffers, the optimizer and loop states, the random number
    generators and a fingerprint of the frozen model: everything that resuming needs beside the pretrained weights
    themselves. It consists of plain types and tensors, so it loads with ``weights_only=True``.

    Example::

        trainer = Trainer(callbacks=[BiasSelectionCallback(), AdapterCheckpoint()])
    """

    def __init__(self) -> None:
        self._handle: RemovableHandle | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let partial checkpoints load, but only after a check of our own that is stricter about the rest."""
        pl_module.strict_loading = False
        self._handle = pl_module.register_load_state_dict_pre_hook(_check_state_dict)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop checking."""
        if self._handle is not None:
            self._handle.remove()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Drop the frozen weights; add what identifies them and the random number generators."""
        frozen = {name for name, parameter in pl_module.named_parameters() if not parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}
        checkpoint[FINGERPRINT_KEY] = fingerprint(pl_module)
        checkpoint[RNG_KEY] = _rng_states()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compare the frozen model with the one the checkpoint was trained on; continue its random numbers."""
        if FINGERPRINT_KEY in checkpoint:
            check_fingerprint(checkpoint[FINGERPRINT_KEY], pl_module)
        # Here and not later: the next draw is the one of the first epoch's dataloader iterator, as in the
        # uninterrupted run.
        if trainer.state.fn == TrainerFn.FITTING and RNG_KEY in checkpoint:
            _set_rng_states(checkpoint[RNG_KEY])


def fingerprint(module: nn.Module) -> dict[str, Any]:
    """What tells one frozen model from another: its size and a few values of its largest frozen tensor."""
    frozen = {name: parameter for name, parameter in module.named_parameters() if not parameter.requires_grad}
    largest = max(frozen, key=lambda name: frozen[name].numel(), default="")
    return {
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "name": largest,
        "values": _sample(frozen[largest]) if largest else [],
    }


def check_fingerprint(saved: Mapping[str, Any], module: nn.Module) -> None:
    """Refuse a checkpoint that was trained on other frozen weights than those of ``module``.

    Raises:
        CheckpointError: If they differ by more than a change of precision.
    """
    parameters = dict(module.named_parameters())
    count = sum(parameter.numel() for parameter in parameters.values())
    if saved["parameters"] != count:
        raise CheckpointError(
            f"the checkpoint belongs to another model: it had {saved['parameters']:,} parameters, this one has "
            f"{count:,}. Give the backbone it was trained on."
        )
    if not saved["name"]:
        return
    here = torch.tensor(_sample(parameters[saved["name"]]) if saved["name"] in parameters else [])
    there = torch.tensor(saved["values"])
    # bf16 keeps 8 bits of a number; the same weights in another precision pass.
    if here.shape != there.shape or not torch.allclose(there, here, rtol=1e-2, atol=1e-6):
        raise CheckpointError(
            f"the checkpoint belongs to another model of the same size: its frozen {saved['name']!r} differs from this "
            "model's. Give the backbone it was trained on (a randomly initialised one needs the same seed)."
        )


def _sample(parameter: nn.Parameter) -> list[float]:
    # The end, because the first row of an embedding is often the zeros of the padding token.
    return parameter.detach().flatten()[-8:].float().cpu().tolist()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file without running any code from it.

    Raises:
        CheckpointError: If it is missing, unreadable, or no Lightning checkpoint.
    """
    path = Path(path)
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


def _check_state_dict(module: nn.Module, state_dict: Mapping[str, Any], *args: Any) -> None:
    """Refuse a state that names tensors the module lacks, or gives them another shape."""
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


def _rng_states() -> dict[str, Any]:
    """The states of all random number generators, as tensors and plain types."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "python": random.getstate(),
    }


def _set_rng_states(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])
