"""Metrics that callbacks and schedulers look at: whether they are logged is known before a fit begins."""

from lightning.pytorch import Trainer

from beft_lightning.errors import BeftError
from beft_lightning.tasks.metrics import TaskMetrics

#: Packages whose callbacks log nothing that others look at.
_KNOWN_PACKAGES = ("lightning", "beft_lightning")


def check_monitors(trainer: Trainer) -> None:
    """Check that what the trainer's callbacks look at (EarlyStopping, ModelCheckpoint) is logged in a fit.

    Raises:
        BeftError: If it is not.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and getattr(callback, "strict", True):
            check_monitored(type(callback).__name__, monitor, trainer)


def check_monitored(who: str, monitor: str, trainer: Trainer) -> None:
    """Check that a metric is logged in a fit, unless a class of the user's may log it.

    Args:
        who: What looks at the metric.
        monitor: Name of the metric.
        trainer: The trainer of a LanguageTaskModule.

    Raises:
        BeftError: If it is not.
    """
    logged = _logged_in_fit(trainer)
    own = [type(part).__module__ for part in (trainer.lightning_module, *trainer.callbacks)]  # type: ignore[attr-defined]
    if monitor not in logged and all(name.partition(".")[0] in _KNOWN_PACKAGES for name in own):
        raise BeftError(f"{who} looks at {monitor!r}, which is not logged: choose one of {', '.join(logged)}.")


def _logged_in_fit(trainer: Trainer) -> list[str]:
    """Return the names of what a LanguageTaskModule logs."""
    if trainer.limit_val_batches == 0:
        return ["train_loss"]
    groups = [part for part in trainer.lightning_module.modules() if isinstance(part, TaskMetrics)]
    validated = [group for group in groups if group.prefix.startswith("val_")]
    losses = [f"{group.prefix}loss" for group in validated]
    return ["train_loss", *losses, *(name for group in validated for name in group.named())]
