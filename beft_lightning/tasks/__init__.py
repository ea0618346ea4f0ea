"""How a task is learnt: the LightningModule, its losses, metrics and ways of tuning."""

from beft_lightning.tasks.module import LanguageTaskModule
from beft_lightning.tuning.methods import WAYS

__all__ = ["WAYS", "LanguageTaskModule"]
