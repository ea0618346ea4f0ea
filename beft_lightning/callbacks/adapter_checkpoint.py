"""Checkpoints that hold what was trained, and nothing else of the model."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.hooks import RemovableHandle

from beft_lightning.checkpoint import (
    FINGERPRINT_KEY,
    RNG_KEY,
    TRAINED_KEY,
    check_state_dict,
    trainable_names,
)
from beft_lightning.errors import CheckpointError
from beft_lightning.fingerprint import check_fingerprint, fingerprint
from beft_lightning.parameters import named_parameters
from beft_lightning.strategies import adapt, release
from beft_lightning.strategies.checkpoints import use_atomic_checkpoints
from beft_lightning.strategies.collectives import gather


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
        use_atomic_checkpoints(trainer.strategy)
        if stage == "fit":
            _check_savers(trainer)
        self._strict = pl_module.strict_loading
        pl_module.strict_loading = False
        self._handle = pl_module.register_load_state_dict_pre_hook(check_state_dict)
        strategy = adapt(trainer.strategy)
        if stage == "fit":
            # Some strategies shard the frozen weights then, and scatter the values of a fingerprint.
            strategy.before_sharding(lambda: self._identify(pl_module))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop checking, and give the trainer its strategy back."""
        self._stop_checking(pl_module)
        release(trainer.strategy)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop checking after a failed run, too."""
        self._stop_checking(pl_module)

    def _stop_checking(self, pl_module: LightningModule) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
            pl_module.strict_loading = self._strict

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
    try:
        torch.set_rng_state(states["torch"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(states["cuda"][: torch.cuda.device_count()])
        name, keys, *rest = states["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        random.setstate(states["python"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"the checkpoint is malformed: its {RNG_KEY!r} holds no states of random number generators ({error}). Use "
            "a checkpoint that a fit has written."
        ) from error
