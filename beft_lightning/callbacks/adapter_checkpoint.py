"""Checkpoints that hold what was trained, and nothing else of the model."""

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.utils.hooks import RemovableHandle

from beft_lightning.errors import CheckpointError
from beft_lightning.strategies import adapt, call_before, checkpoint_file, gather, named_parameters, whole

#: Where the identity of the frozen model stands in a checkpoint.
FINGERPRINT_KEY = "beft_fingerprint"
#: Names of the trained parameters, in the order of the optimizer's state.
TRAINED_KEY = "beft_trained"
RNG_KEY = "beft_rng"


class AdapterCheckpoint(Callback):
    """Leave frozen weights out of every checkpoint, and refuse a checkpoint that does not fit the model.

    A checkpoint holds the trained parameters, the buffers, the optimizer and loop states, the random number
    generators and a fingerprint of the frozen model: everything that resuming needs beside the pretrained weights
    themselves. It consists of plain types and tensors, so it loads with ``weights_only=True``.

    Under every strategy the trained values are written whole: a checkpoint can be evaluated, exported and, but for
    DeepSpeed, resumed under another strategy and with another number of processes. DeepSpeed writes a folder, which
    holds the engine's files beside the ordinary one.

    Resuming is exact at the end of an epoch, and with this package's DataModules also in the middle of one; with
    others Lightning starts the epoch's dataloader over. A run whose length is in ``max_steps`` is an exception:
    Lightning counts its epochs differently after resuming, so that the batches come in another order.

    Example::

        trainer = Trainer(callbacks=[BiasSelectionCallback(), AdapterCheckpoint()])
    """

    def __init__(self) -> None:
        self._handle: RemovableHandle | None = None
        self._resumed: list[str] | None = None
        self._fingerprint: dict[str, Any] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let partial checkpoints load, but only after checks of our own that are stricter about the rest."""
        self._resumed = self._fingerprint = None
        if stage == "fit":
            _check_savers(trainer)
        self._strict = pl_module.strict_loading
        pl_module.strict_loading = False
        self._handle = pl_module.register_load_state_dict_pre_hook(check_state_dict)
        if stage == "fit":
            # Some strategies shard the frozen weights there, and scatter their values.
            call_before(adapt(trainer.strategy), "setup", lambda: self._identify(pl_module))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop checking."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
            pl_module.strict_loading = self._strict
        trainer.strategy.__dict__.pop("setup", None)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop checking after a failed run, too."""
        self.teardown(trainer, pl_module, "")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Drop the frozen weights; add what identifies them and the random number generators."""
        # With tied weights, one tensor stands in the state under several names.
        everything = list(named_parameters(pl_module, remove_duplicate=False))
        frozen = {name for name, parameter in everything if not parameter.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}
        checkpoint[TRAINED_KEY] = trainable_names(pl_module)
        checkpoint[FINGERPRINT_KEY] = {k: v for k, v in self._identify(pl_module).items() if k in frozen}
        checkpoint[RNG_KEY] = gather(_rng_states())

    def _identify(self, pl_module: LightningModule) -> dict[str, Any]:
        if self._fingerprint is None:  # Frozen weights do not change.
            self._fingerprint = fingerprint(pl_module)
        return self._fingerprint

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compare the frozen model with the one the checkpoint was trained on; continue its random numbers."""
        if FINGERPRINT_KEY not in checkpoint:
            return
        check_fingerprint(checkpoint[FINGERPRINT_KEY], self._identify(pl_module), set(checkpoint[TRAINED_KEY]))
        if trainer.state.fn == TrainerFn.FITTING:
            self._resumed = checkpoint[TRAINED_KEY]
            # Here and not later: the next draw is the one of the first epoch's dataloader iterator, as in the
            # uninterrupted run.
            if len(checkpoint[RNG_KEY]) == trainer.world_size:
                _set_rng_states(checkpoint[RNG_KEY][trainer.global_rank])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to resume the training of other parameters: the optimizer's state goes by their order."""
        here = trainable_names(pl_module)
        if self._resumed is not None and self._resumed != here:
            different = sorted(set(self._resumed) ^ set(here))
            raise CheckpointError(
                f"the checkpoint trained {len(self._resumed)} parameters and this run trains {len(here)} others, for "
                f"example {different[0] if different else here[0]!r}: resume with the same `tune` or selection, or "
                "start a new run."
            )


def _check_savers(trainer: Trainer) -> None:
    """Refuse checkpoints that Lightning writes without asking callbacks: they would hold the whole model."""
    if any(isinstance(saver, ModelCheckpoint) and saver.save_weights_only for saver in trainer.checkpoint_callbacks):
        raise CheckpointError(
            "ModelCheckpoint with save_weights_only writes the whole model and nothing of what was trained: leave it "
            "out. Checkpoints hold the trained values and their optimizer's state; `export` writes the values alone."
        )


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
    values = whole(parameter).flatten()
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
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(states["python"])
