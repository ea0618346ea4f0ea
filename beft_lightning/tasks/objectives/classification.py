"""Encoders under a head: sequence classification, regression and multiple choice."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification, PreTrainedModel

from beft_lightning.data.task import Task


class ClassificationObjective:
    """An encoder under a classification, regression or multiple choice head.

    Args:
        task: The task's record.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        choosing = task.kind == "multiple_choice"
        self.auto_class: Any = AutoModelForMultipleChoice if choosing else AutoModelForSequenceClassification
        #: What the backbone's config has to say.
        self.config = {"num_labels": task.outputs}

    def logits(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Outputs of shape ``(batch, outputs)``, for multiple choice ``(batch, choices)``."""
        logits: Tensor = model(**{name: batch[name] for name in batch if name not in ("labels", "id")}).logits
        return logits

    def loss(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """The loss of a training batch."""
        return classification_loss(self.task, self.logits(model, batch), batch["labels"])

    def evaluate(self, model: PreTrainedModel, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Predictions of an evaluation batch, and its loss."""
        logits = self.logits(model, batch)
        return predictions(self.task, logits), classification_loss(self.task, logits, batch["labels"])

    def decode(self, predicted: Tensor, batch: dict[str, Any]) -> list[Any]:
        """Predictions for people: label names, or scores."""
        values = predicted.tolist()
        return [self.task.labels[value] for value in values] if self.task.labels else values


def classification_loss(task: Task, logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the labels, or squared error for regression, averaged over the batch.

    Args:
        task: Says which of the two.
        logits: Shape ``(batch, outputs)``.
        labels: Label ids or scores, shape ``(batch,)``.
    """
    if task.kind == "regression":
        return F.mse_loss(logits.squeeze(-1).float(), labels.float())
    return F.cross_entropy(logits.float(), labels)


def predictions(task: Task, logits: Tensor) -> Tensor:
    """Label ids, or scores for regression, shape ``(batch,)``; arguments as in :func:`classification_loss`."""
    return logits.squeeze(-1).float() if task.kind == "regression" else logits.argmax(dim=-1)
