"""Checkpoints that hold what was trained, and nothing else of the model."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.adapter import remember_trained
from beft_lightning.bias import Architecture
from beft_lightning.bias.precision import HALF
from beft_lightning.callbacks.averaging import average_exactly, copy_again
from beft_lightning.callbacks.bias_selection import BiasSelectionCallback
from beft_lightning.checkpoint import MODEL_KEY, RNG_KEY, TRAINED_KEY, trainable_names
from beft_lightning.errors import CheckpointError
from beft_lightning.parameters import named_parameters
from beft_lightning.strategies.adaptation import adapt, release
from beft_lightning.strategies.checkpoints import use_atomic_checkpoints
from beft_lightning.strategies.collectives import gather
from beft_lightning.strategies.compatibility import check_half_weights


class AdapterCheckpoint(Callback):
    """Leave frozen weights out of every checkpoint, and check that a checkpoint fits the model.

    A checkpoint holds the trained parameters, the buffers, the optimizer and loop states, the random number
    generators and a fingerprint of the frozen model: everything that resuming needs beside the pretrained weights
    themselves. It consists of plain types and tensors, so it loads with ``weights_only=True``. One that is saved with
    ``weights_only`` (``save_weights_only`` of ModelCheckpoint) holds the values and the fingerprint.

    Any Trainer with this callback reads the checkpoints, also without a BiasSelectionCallback: the module gets the
    biases that the checkpoint names, and a fit continues to train the same parameters. Without a Trainer, call
    :func:`~beft_lightning.load_adapter`.

    Under every strategy the trained values are written whole: a checkpoint can be evaluated, exported and, but for
    DeepSpeed, resumed under another strategy and with another number of processes. DeepSpeed writes a folder, which
    holds the engine's files beside the ordinary one.

    Resuming is exact at the end of an epoch, and with this package's DataModules also in the middle of one; with
    others Lightning starts the epoch's dataloader over. A run whose length is in ``max_steps`` is an exception:
    Lightning counts its epochs differently after resuming, so that the batches come in another order.

    What an earlier fit of the same module trained, or a checkpoint brought, is part of later checkpoints, although it
    is frozen then.

    Args:
        architecture: Where the bias terms are, for models that the built-in table does not know. It is needed for parts
            of fused biases, where no BiasSelectionCallback has it.

    Example::

        trainer = Trainer(callbacks=[BiasSelectionCallback(), AdapterCheckpoint()])
    """

    def __init__(self, architecture: Architecture | None = None) -> None:
        self.architecture = architecture
        self._resumed: list[str] | None = None
        self._decided_elsewhere = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the strategy write and read checkpoints of trained values."""
        self._resumed = None
        use_atomic_checkpoints(trainer.strategy)
        strategy = adapt(trainer.strategy)
        strategy.saves_trained_values, strategy.architecture = True, self.architecture
        strategy.forget_fingerprint()
        if stage == "fit":
            strategy.before_values(lambda: copy_again(trainer, pl_module))
            strategy.before_optimizers(lambda: self._freeze_rest(trainer, pl_module))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the trainer its strategy back, but for the way in which it writes checkpoints."""
        release(trainer.strategy)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the states of the random number generators. The strategy does the rest."""
        checkpoint[RNG_KEY] = gather(_rng_states())

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Continue the random numbers of the fit that is resumed."""
        if TRAINED_KEY in checkpoint and trainer.state.fn == TrainerFn.FITTING:
            self._resumed = checkpoint[TRAINED_KEY]
            self._decided_elsewhere = MODEL_KEY in checkpoint  # A LanguageTaskModule says itself what it trains.
            # Here and not later: the next draw is the one of the first epoch's dataloader iterator, as in the
            # uninterrupted run.
            if len(checkpoint[RNG_KEY]) == trainer.world_size:
                _set_rng_states(checkpoint[RNG_KEY][trainer.global_rank])

    def _freeze_rest(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Train what the checkpoint has trained, where nobody else says what is trained.

        Raises:
            BeftError: If that would be in half precision.
        """
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        selected = any(isinstance(callback, BiasSelectionCallback) for callback in callbacks)
        untouched = all(parameter.requires_grad for parameter in pl_module.parameters())
        if self._resumed is None or self._decided_elsewhere or selected or not untouched:
            return
        trained = set(self._resumed)
        for name, parameter in named_parameters(pl_module):
            parameter.requires_grad_(name in trained)
            if name in trained and parameter.dtype in HALF:
                check_half_weights(trainer, parameter.dtype)
        rank_zero_info(f"Training goes on with the {len(trained)} parameters that the checkpoint has trained.")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that a resumed fit trains the same parameters: the optimizer's state goes by their order.

        Raises:
            CheckpointError: If it does not.
        """
        here = trainable_names(pl_module)
        if self._resumed is not None and self._resumed != here:
            different = sorted(set(self._resumed) ^ set(here))
            raise CheckpointError(
                f"the checkpoint trained {len(self._resumed)} parameters and this run trains {len(here)} others, for "
                f"example {different[0] if different else here[0]!r}: resume with the same selection (of "
                "LanguageTaskModule: the same `tune`), or start a new run."
            )
        remember_trained(pl_module, here)
        average_exactly(trainer)


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
