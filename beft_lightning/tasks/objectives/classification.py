"""Sequence classification and regression: an encoder under a new head."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from beft_lightning.bias import head_parameters
from beft_lightning.data.task import Task
from beft_lightning.tasks.objectives.objective import Objective, labelled_rows


class ClassificationObjective(Objective[Task]):
    """One label of a fixed set for each example."""

    auto_class: ClassVar[Any] = AutoModelForSequenceClassification
    #: Parts of a batch that the model does not take.
    not_inputs: ClassVar[tuple[str, ...]] = ("labels", "id")

    @property
    def config(self) -> dict[str, Any]:
        """Number of outputs: one for each label."""
        return {"num_labels": len(self.task.labels)}

    @property
    def output_names(self) -> tuple[str, ...]:
        """The label names."""
        return self.task.labels

    def logits(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Return the model's outputs, shape ``(batch, outputs)``."""
        logits: Tensor = model(**{name: batch[name] for name in batch if name not in self.not_inputs}).logits
        return logits

    def loss(self, model: PreTrainedModel, batch: dict[str, Any]) -> Tensor:
        """Return the loss of a training batch, a scalar."""
        return self.loss_of(self.logits(model, batch), batch["labels"])

    def evaluate(self, model: PreTrainedModel, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Return the predictions of an evaluation batch, shape ``(batch,)``, and its loss."""
        logits = self.logits(model, batch)
        return self.predictions_of(logits), self.loss_of(logits, batch["labels"])

    def rows(self, model: PreTrainedModel, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the columns of :meth:`rows_of` for each example."""
        return self.rows_of(self.logits(model, batch))

    def rows_of(self, logits: Tensor) -> list[dict[str, Any]]:
        """Return ``label`` and ``probabilities`` (label name -> probability) of each example.

        Args:
            logits: The model's outputs, shape ``(examples, outputs)``.
        """
        probabilities = logits.float().softmax(dim=-1)
        return labelled_rows(probabilities, [self.task.labels] * len(probabilities))

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy averaged over the batch.

        Args:
            logits: Outputs of shape ``(batch, outputs)``.
            labels: Label ids, shape ``(batch,)``.
        """
        return F.cross_entropy(logits.float(), labels)

    def predictions_of(self, logits: Tensor) -> Tensor:
        """Return the label ids, shape ``(batch,)``."""
        return logits.argmax(dim=-1)

    def decode(self, predictions: Tensor, batch: dict[str, Any]) -> list[Any]:
        """Return the label names."""
        return [self.task.labels[prediction] for prediction in predictions.tolist()]


class RegressionObjective(ClassificationObjective):
    """A score for each example."""

    @property
    def config(self) -> dict[str, Any]:
        """Number of outputs: one."""
        return {"num_labels": 1}

    @property
    def output_names(self) -> tuple[str, ...]:
        """No names."""
        return ()

    @torch.no_grad()
    def start_head(self, model: PreTrainedModel) -> None:
        """Start from the mean score, so that a short fit need not learn the scores' offset; some heads have no bias."""
        for name in head_parameters(model):
            bias = model.get_parameter(name)
            if name.endswith("bias") and bias.shape == (1,):
                bias.fill_(self.task.mean_score)

    def rows_of(self, logits: Tensor) -> list[dict[str, Any]]:
        """Return the ``score`` of each example."""
        return [{"score": score} for score in self.predictions_of(logits).tolist()]

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the squared error averaged over the batch; arguments as in classification, with scores as labels."""
        return F.mse_loss(logits.squeeze(-1).float(), labels.float())

    def predictions_of(self, logits: Tensor) -> Tensor:
        """Return the scores, shape ``(batch,)``."""
        return logits.squeeze(-1).float()

    def decode(self, predictions: Tensor, batch: dict[str, Any]) -> list[Any]:
        """Return the scores as numbers."""
        return predictions.tolist()
