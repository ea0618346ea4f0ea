"""Stopping a fit that has diverged, before it spoils its checkpoint."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.precision import DeepSpeedPrecision
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from beft_lightning.errors import NonFiniteError
from beft_lightning.parameters import named_parameters
from beft_lightning.strategies.adapter import AdapterStrategy


class NonFiniteCheck(Callback):
    """Stop at the first loss or gradient that is NaN or infinite, and never save such values.

    The loss and the norm of the trained gradients are added up on the device, and looked at once in each optimizer
    step. Where a scaler of gradients is at work (fp16), infinite gradients are an ordinary event, and only the loss
    and what is saved are looked at.

    Args:
        stop: Stop with an error. If false, warn once, go on, and save what there is.

    Raises:
        NonFiniteError: On all processes, if one of them has such a value.
    """

    def __init__(self, stop: bool = True) -> None:
        self.stop = stop
        self._loss: Tensor | None = None
        self._warned = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with nothing looked at."""
        self._loss, self._warned = None, False

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Add up the losses of one step; whatever is not finite stays so."""
        loss = loss.detach().float().sum()
        self._loss = loss if self._loss is None else self._loss + loss

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the losses since the last step, and at the gradients."""
        loss, self._loss = self._loss, None
        total = torch.zeros((), device=pl_module.device) if loss is None else loss
        if not _scales_gradients(trainer):
            total = total + _gradient_norm(optimizer)
        if _on_any(trainer, not torch.isfinite(total)):
            bad_loss = loss is not None and not torch.isfinite(loss)
            self._report(trainer, f"the training loss is {loss:.3g}" if bad_loss else "a gradient is not finite")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let an adapted strategy look at the values that it saves: no hook is called for those of weights only."""
        if isinstance(trainer.strategy, AdapterStrategy):
            trainer.strategy.check_values = self.check_values

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, object]) -> None:
        """Look at the trained values, unless the strategy does."""
        if not isinstance(trainer.strategy, AdapterStrategy):
            self.check_values(pl_module)

    def check_values(self, pl_module: LightningModule) -> None:
        """Look at the trained values before they replace those of an earlier checkpoint."""
        trainer = pl_module.trainer
        trained = [(name, parameter) for name, parameter in named_parameters(pl_module) if parameter.requires_grad]
        bad = [name for name, parameter in trained if not torch.isfinite(_local(parameter)).all()]
        if _on_any(trainer, bool(bad)):
            self._report(trainer, f"the trained values of {bad[0] if bad else 'another process'} are not finite")

    def _report(self, trainer: Trainer, what: str) -> None:
        rates = ", ".join(f"{group['lr']:.3g}" for optimizer in trainer.optimizers for group in optimizer.param_groups)
        message = (
            f"{what} at step {trainer.global_step} (epoch {trainer.current_epoch}, learning rate {rates}). "
            f"The last good checkpoint is {_last_saved(trainer) or 'none: no checkpoint was written yet'}."
        )
        if self.stop:
            raise NonFiniteError(
                f"{message} Lower the learning rate or the gradient clipping, or use a wider precision; "
                "--nonfinite.stop false trains on."
            )
        if not self._warned:
            self._warned = True
            rank_zero_warn(f"{message} Training goes on, as nonfinite.stop is false.")


def _gradient_norm(optimizer: Optimizer) -> Tensor:
    """The joint norm of the gradients that this process holds."""
    held = [_local(p.grad) for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return torch.nn.utils.get_total_norm(held) if held else torch.zeros(())


def _local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def _scales_gradients(trainer: Trainer) -> bool:
    precision = trainer.precision_plugin
    deepspeed = isinstance(precision, DeepSpeedPrecision) and precision.precision.startswith("16")
    return deepspeed or getattr(precision, "scaler", None) is not None


def _on_any(trainer: Trainer, here: bool | Tensor) -> bool:
    return trainer.strategy.reduce_boolean_decision(bool(here), all=False)


def _last_saved(trainer: Trainer) -> str:
    savers = [saver for saver in trainer.checkpoint_callbacks if isinstance(saver, ModelCheckpoint)]
    return next((s.last_model_path for s in savers if s.last_model_path), str(trainer.ckpt_path or ""))
