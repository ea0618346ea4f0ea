"""The callback that watches a run of a comparison."""

import math

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class BestEpoch(Callback):
    """Record the main metric of each validation, and keep the trained parameters of the best epoch.

    Args:
        monitor: Name of the metric; higher is better.
        keep: Keep the parameters, not only the history.
    """

    def __init__(self, monitor: str, *, keep: bool) -> None:
        self.monitor = monitor
        self.keep = keep
        #: Value of the metric in each validation.
        self.history: list[float] = []
        #: Name -> value of each trained parameter at the best epoch; empty if nothing is kept.
        self.parameters: dict[str, Tensor] = {}
        #: The best epoch, counted from 1.
        self.epoch: int | None = None
        self._value = -math.inf

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the metric, except in Lightning's check before the first epoch."""
        if trainer.sanity_checking:
            return
        value = float(trainer.callback_metrics[self.monitor])
        self.history.append(value)
        if self.keep and value > self._value:
            trained = [name for name, parameter in pl_module.named_parameters() if parameter.requires_grad]
            state = pl_module.state_dict()
            self.parameters = {name: state[name].detach().cpu().clone() for name in trained}
            self.epoch, self._value = trainer.current_epoch + 1, value
