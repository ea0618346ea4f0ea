"""Any number of labels for each text: an encoder under a new head."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from beft_lightning.tasks.objectives.classification import ClassificationObjective

#: A label is predicted above this probability.
THRESHOLD = 0.5


class MultiLabelObjective(ClassificationObjective):
    """Any number of labels of a fixed set for each example; labels and predictions have shape ``(batch, labels)``."""

    @property
    def config(self) -> dict[str, Any]:
        """Number of outputs, one for each label, and what transformers calls the problem."""
        return {**super().config, "problem_type": "multi_label_classification"}

    def loss_of(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the binary cross-entropy averaged over batch and labels.

        Args:
            logits: Outputs of shape ``(batch, labels)``.
            labels: 1 for each label that an example has and 0 for the others, shape ``(batch, labels)``.
        """
        return F.binary_cross_entropy_with_logits(logits.float(), labels.float())

    def predictions_of(self, logits: Tensor) -> Tensor:
        """Return 1 for each label whose probability is above .5 and 0 for the others, shape ``(batch, labels)``."""
        return (logits.float().sigmoid() > THRESHOLD).long()

    def rows_of(self, logits: Tensor) -> list[dict[str, Any]]:
        """Return ``labels``, those above .5, and ``probabilities`` (label name -> probability) of each example."""
        probabilities = logits.float().sigmoid().tolist()
        named = [dict(zip(self.task.labels, row, strict=True)) for row in probabilities]
        return [{"labels": [name for name in row if row[name] > THRESHOLD], "probabilities": row} for row in named]

    def decode(self, predictions: Tensor, batch: dict[str, Any]) -> list[Any]:
        """Return the names of the labels of each example, with a comma between."""
        return [
            ",".join(name for name, chosen in zip(self.task.labels, row, strict=True) if chosen)
            for row in predictions.tolist()
        ]
