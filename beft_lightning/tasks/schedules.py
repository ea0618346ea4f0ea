"""The learning rate over a fit, which may depend on a metric."""

from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from beft_lightning.errors import BeftError
from beft_lightning.tasks.monitoring import check_monitored


def linear_decay(optimizer: Optimizer, steps: int) -> dict[str, Any]:
    """Return Lightning's configuration of a learning rate that falls to zero within ``steps`` steps."""
    # In closed form, so that a run resumed with more epochs falls along its own line.
    return {"scheduler": LambdaLR(optimizer, partial(_share_left, steps)), "interval": "step"}


def _share_left(steps: int, step: int) -> float:
    return max(0.0, 1 - step / steps)


def each_epoch(scheduler: Any, module: LightningModule) -> dict[str, Any]:
    """Return Lightning's configuration of a scheduler that is stepped after each epoch.

    A scheduler that looks at a metric is stepped by :func:`step_on_plateau`. Lightning would do so only after the
    epoch's checkpoint is written, and leave it out when a fit is resumed from there.

    Raises:
        BeftError: If it looks at a metric that it does not name, or that is not logged.
    """
    if not isinstance(scheduler, ReduceLROnPlateau):
        return {"scheduler": scheduler}
    monitor = getattr(scheduler, "monitor", None)
    if monitor is None:
        raise BeftError(
            "model.lr_scheduler: torch's ReduceLROnPlateau does not say which metric it looks at. Take "
            "lightning.pytorch.cli.ReduceLROnPlateau, which has an argument `monitor`, for example 'val_loss'."
        )
    check_monitored("model.lr_scheduler", monitor, module.trainer)
    for group in scheduler.optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])  # As other schedulers do: where the rate has started from.
    return {"scheduler": scheduler, "reduce_on_plateau": False}


def step_on_plateau(scheduler: ReduceLROnPlateau, trainer: Trainer) -> None:
    """Show a scheduler its metric at the end of an epoch; epochs without validation are left out for ``val_`` metrics.

    Raises:
        BeftError: If the metric was not logged.
    """
    monitor: str = scheduler.monitor  # type: ignore[attr-defined]  # of Lightning's subclass
    every = trainer.check_val_every_n_epoch
    if monitor.startswith("val_") and (trainer.current_epoch + 1) % (every or 1):
        return
    value = trainer.callback_metrics.get(monitor)
    if value is not None:
        scheduler.step(float(trainer.strategy.reduce(value, reduce_op="mean")))
    elif every is not None:  # otherwise the first validation may come in a later epoch
        raise BeftError(
            f"model.lr_scheduler looks at {monitor!r}, which is not logged: choose one of "
            f"{', '.join(sorted(trainer.callback_metrics))}."
        )
