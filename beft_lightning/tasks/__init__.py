"""Learning a task: the LightningModule, its objectives and its metrics."""

from beft_lightning.tasks.module import LanguageTaskModule

__all__ = ["LanguageTaskModule"]
