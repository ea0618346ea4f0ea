"""Sequence classification and regression: one output vector per example."""

import torch.nn.functional as F
from torch import Tensor

from beft_lightning.data.task import Task


def loss(task: Task, logits: Tensor, labels: Tensor) -> Tensor:
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
    """Label ids, or scores for regression, shape ``(batch,)``; arguments as in :func:`loss`."""
    return logits.squeeze(-1).float() if task.kind == "regression" else logits.argmax(dim=-1)
