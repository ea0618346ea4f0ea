"""Ending a fit on a signal without losing what it has trained."""

import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from beft_lightning.callbacks.last_checkpoint import save_last
from beft_lightning.resume import requeued_checkpoints
from beft_lightning.signals import ENDING, Interrupted, install, restore
from beft_lightning.strategies.slurm import requeue_job, slurm_environment


class Interruption(Callback):
    """Save and end when the process is told to end: by SIGTERM, by Ctrl-C, or by SLURM.

    While training, the signal's handler only sets a flag. At the end of a batch all processes agree, save
    ``last.ckpt`` in the folder of the trainer's ModelCheckpoint, and end with exit code 128 plus the signal's number.
    The state is that of a whole step, from which a resumed fit goes on exactly. While a model is loaded, scored or
    evaluated there is nothing to save, and the process ends at once; so it does on a second Ctrl-C.

    Under SLURM, SIGUSR1, SIGUSR2 and the environment's own signal do the same. Where Lightning requeues the job
    (``SLURMEnvironment(auto_requeue=True)``, its default), this does too, and leaves the ``hpc_ckpt_N.ckpt`` that
    Lightning resumes from by itself.

    In a list of callbacks it belongs at the end, after those whose state a checkpoint has to hold. Handlers are
    installed from the main thread only, and put back afterwards.

    Example::

        trainer = Trainer(callbacks=[ModelCheckpoint(), Interruption()])
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._previous: dict[int, Any] = {}
        self._signals: set[int] = set()
        self._requeue_signal: int | None = None
        self._process = 0
        self._received = 0
        self._training = False
        self._saved_step = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Install the handlers, before anything that takes long."""
        self._trainer, self._process = trainer, os.getpid()
        self._received, self._training, self._saved_step = 0, False, -1
        self._signals, self._requeue_signal = set(ENDING), None
        if (slurm := slurm_environment(trainer)) is not None:
            self._signals |= {signal.SIGUSR1, signal.SIGUSR2}
            if slurm.requeue_signal is not None:
                self._signals.add(slurm.requeue_signal)
                self._requeue_signal = slurm.requeue_signal if slurm.auto_requeue else None
        previous = install(self._handle, self._signals)
        # After a failed run, Lightning has put this handler back in place.
        self._previous |= {signum: handler for signum, handler in previous.items() if handler != self._handle}

    def _install_again(self) -> None:
        """Take SIGTERM back from Lightning, whose handler talks to other processes in the middle of a step."""
        install(self._handle, self._signals)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals: this comes right after Lightning has installed its own handlers."""
        self._install_again()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals; see :meth:`on_sanity_check_start`."""
        self._install_again()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals; see :meth:`on_sanity_check_start`."""
        self._install_again()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals; see :meth:`on_sanity_check_start`."""
        self._install_again()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals; see :meth:`on_sanity_check_start`."""
        self._install_again()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put back the handlers that were there before."""
        restore(self._previous)
        self._trainer = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put them back after a failed run, too, and say how to go on after a signal.

        Lightning installs the present ones again after this; :meth:`_handle` then passes a signal on.
        """
        if isinstance(exception, Interrupted) and not exception.reported:
            exception.reported = True
            rank_zero_info(f"{exception}")
        self.teardown(trainer, pl_module, "")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """From here on there is something to save."""
        self._training = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End here, if asked to, where a resumed fit goes on as if nothing had been."""
        if _resumes_exactly(trainer, batch_idx):
            self._end_if_asked(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End between two epochs, if asked to and the state was saved at the end of the last one.

        What is saved here would not do: Lightning leaves out an epoch when it resumes from the start of one.
        """
        if self._training and self._saved_step == trainer.global_step:
            self._end_if_asked(trainer, save=False)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note which step was saved last."""
        self._saved_step = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last checkpoint is written: nothing is left to wait for."""
        self._training = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A worker of a DataLoader, forked with this handler. Its parent, which got the signal too, still needs it.
            signal.signal(signum, signal.SIG_DFL)
        elif self._trainer is None:
            signal.signal(signum, self._previous.get(signum, signal.SIG_DFL))
            signal.raise_signal(signum)
        else:
            again, self._received = self._received, signum
            impatient = signum == again == signal.SIGINT and self._trainer.world_size == 1
            if not self._training or impatient:
                self._end_at_once(self._trainer, signum)

    def _end_at_once(self, trainer: Trainer, signum: int) -> None:
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signum)  # the processes it has started
        if signum == self._requeue_signal and trainer.is_global_zero:
            requeue_job()
        raise Interrupted(signum, _to_go_on_from(trainer))

    def _end_if_asked(self, trainer: Trainer, *, save: bool = True) -> None:
        signum = self._received
        if trainer.world_size > 1:
            # One process may have got a signal that the others did not.
            asked = torch.tensor(signum, device=trainer.strategy.root_device)
            signum = int(trainer.strategy.reduce(asked, reduce_op="max"))
        # A job that is requeued goes on from a checkpoint of its own, which cannot be saved between epochs.
        if not signum or (signum == self._requeue_signal and not save):
            return
        savers = [saver for saver in trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]
        saved = None
        if savers and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            saved = save_last(trainer, savers[0]) if save else _to_go_on_from(trainer)
        if signum == self._requeue_signal:
            root = Path(trainer.default_root_dir)
            number = trainer.strategy.broadcast(max(requeued_checkpoints(root), default=0) + 1)
            trainer.save_checkpoint(root / f"hpc_ckpt_{number}.ckpt")
            if trainer.is_global_zero:
                requeue_job()
        raise Interrupted(signum, saved)


def _to_go_on_from(trainer: Trainer) -> str | None:
    """Return the newest checkpoint of a fit, which may be the one that it was resumed from; None in evaluations."""
    if trainer.state.fn != TrainerFn.FITTING:
        return None
    savers = [saver for saver in trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]
    written = [path for saver in savers for path in (saver.last_model_path, saver.best_model_path) if path]
    found = next(iter(written), trainer.ckpt_path)
    return None if found is None else str(found)


def _resumes_exactly(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether a fit resumed from the end of this batch is the same as one that goes on.

    Not between two batches of one step, as gradients are not saved. Not before a validation, which Lightning would
    leave out when it resumes. Not at the end of an epoch, which has :meth:`Interruption.on_train_epoch_start`.
    """
    batches = batch_idx + 1
    since_validation = batches if trainer.check_val_every_n_epoch else trainer.fit_loop.total_batch_idx + 1
    return (
        batches % trainer.accumulate_grad_batches == 0
        and not trainer.is_last_batch
        and since_validation % (trainer.val_check_batch or float("inf")) != 0
    )
