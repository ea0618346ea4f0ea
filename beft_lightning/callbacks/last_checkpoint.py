"""A checkpoint to go on from, at any time of a fit."""

from typing import Any
from weakref import proxy

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint whose ``last.ckpt`` is the newest state of the fit.

    It is written after each epoch, whatever else is written, and after every ``every_n_train_steps`` steps or
    ``train_time_interval``. Lightning's own writes it only together with one of the best checkpoints, and with such
    an interval not at the end of the fit.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after an interval, but not between two batches of one step: a checkpoint holds no gradients."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after an epoch."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.save_last and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            save_last(trainer, self)
            if trainer.is_global_zero:
                for logger in trainer.loggers:
                    logger.after_save_checkpoint(proxy(self))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave it at the checkpoint of the last epoch, with which every training ends."""


def save_last(trainer: Trainer, saver: ModelCheckpoint) -> str:
    """Write the state of a fit as the ``last.ckpt`` of a ModelCheckpoint; all processes call this together.

    Returns:
        The checkpoint's path.
    """
    step = {"epoch": trainer.current_epoch, "step": trainer.global_step}
    path = saver.last_model_path or saver.format_checkpoint_name(dict(step), saver.CHECKPOINT_NAME_LAST)  # type: ignore[arg-type]
    version = saver.STARTING_VERSION
    # Another run's stays where it is, as with Lightning's own.
    while path != saver.last_model_path and saver.file_exists(path, trainer):
        path = saver.format_checkpoint_name(dict(step), saver.CHECKPOINT_NAME_LAST, ver=version)  # type: ignore[arg-type]
        version += 1
    saver.last_model_path = path
    trainer.save_checkpoint(path)
    return path
