"""The metrics of the tasks, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import (
    BinaryF1Score,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
    MultilabelExactMatch,
    MultilabelF1Score,
)
from torchmetrics.regression import PearsonCorrCoef, SpearmanCorrCoef
from torchmetrics.utilities import dim_zero_cat

from beft_lightning.data.metrics import suitable_metrics
from beft_lightning.data.preprocessors.tokens import NO_TAG
from beft_lightning.data.task import DEV, TaskRecord
from beft_lightning.errors import BeftError
from beft_lightning.tasks.entities import EntityScore
from beft_lightning.tasks.text_metrics import answer_em, answer_f1, drop_em, drop_f1, rouge


class MatthewsCorrelation(MulticlassMatthewsCorrCoef):
    """Matthews' correlation; 0 where it is not defined, because one class alone is predicted or occurs."""

    def compute(self) -> Tensor:
        """Return the correlation, a scalar."""
        counts = self.confmat
        if min((counts.sum(dim=0) > 0).sum(), (counts.sum(dim=1) > 0).sum()) < 2:
            return torch.zeros((), device=counts.device)
        return super().compute()


class Perplexity(MeanMetric):
    """Exponential of the cross-entropy averaged over all tokens."""

    def compute(self) -> Tensor:
        """Return the perplexity, a scalar."""
        return super().compute().exp()


class QuestionExactMatch(Metric):
    """Share of questions whose answers were all judged correctly (MultiRC's EM)."""

    correct: list[Tensor]
    question: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", default=[], dist_reduce_fx="cat")
        self.add_state("question", default=[], dist_reduce_fx="cat")

    def update(self, correct: Tensor, question: Tensor) -> None:
        """Add judgements.

        Args:
            correct: 1 for each correct judgement, 0 for the others, shape ``(n,)``.
            question: Number of the question of each judgement, shape ``(n,)``.
        """
        self.correct.append(correct)
        self.question.append(question)

    def compute(self) -> Tensor:
        """Return the share, a scalar."""
        correct, question = dim_zero_cat(self.correct), dim_zero_cat(self.question)
        questions, inverse = question.unique(return_inverse=True)
        wrong = torch.zeros(len(questions), device=correct.device).index_add(0, inverse, 1.0 - correct.float())
        return (wrong == 0).float().mean()


@dataclass(frozen=True)
class MetricDefinition:
    """How a metric is made and updated; which tasks it suits is in :mod:`beft_lightning.data.metrics`.

    Args:
        make: Makes the metric, given the task.
        arguments: Arguments of the metric's ``update``, given a batch's predictions and the batch.
    """

    make: Callable[[TaskRecord], Metric]
    arguments: Callable[[Any, dict[str, Any]], tuple[Any, ...]]


def _first_label(predictions: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return predictions and labels, both of shape ``(batch,)``; of several right options the first."""
    labels = batch["labels"]
    return predictions, labels[:, 0] if labels.dim() == 2 else labels


def _all_labels(predictions: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return predictions and labels, both of shape ``(batch, labels)`` if an example may have several."""
    return (predictions, batch["labels"]) if predictions.dim() == 2 else _first_label(predictions, batch)


def _tags(predictions: Tensor, batch: dict[str, Any]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the predicted and the right tag ids of each sentence, of the words that have a label."""
    labelled = [labels != NO_TAG for labels in batch["labels"]]
    predicted, known = (
        [row[mask].tolist() for row, mask in zip(rows, labelled, strict=True)]
        for rows in (predictions, batch["labels"])
    )
    return predicted, known


def _right_tags(predictions: Tensor, batch: dict[str, Any]) -> tuple[Tensor]:
    """Return 1 for each word whose tag is right and 0 for the others, shape ``(words,)``."""
    labels = batch["labels"]
    return ((predictions == labels)[labels != NO_TAG].float(),)


def _macro_f1(task: TaskRecord) -> Metric:
    make: Any = MultilabelF1Score if task.kind == "multi_label" else MulticlassF1Score
    metric: Metric = make(len(task.labels), average="macro")
    return metric


def _correct(predictions: Tensor, batch: dict[str, Any]) -> tuple[Tensor]:
    """Return 1 for each example whose prediction is among its labels and 0 for the others, shape ``(batch,)``."""
    labels = batch["labels"].reshape(len(predictions), -1)
    return ((labels == predictions[:, None]).any(dim=1).float(),)


def _correct_by_question(predictions: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return *_correct(predictions, batch), batch["group"]


def _cross_entropies(predictions: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy of each text's tokens, and as its weight their number, both of shape ``(batch,)``.

    Args:
        predictions: The sum of each text's log-probabilities, and the number of its tokens, shape ``(batch, 2)``.
        batch: The batch.
    """
    sums, lengths = predictions.unbind(dim=1)
    return -sums / lengths, lengths


def _mean_score(score: Callable[[str, list[list[str]]], float]) -> MetricDefinition:
    """Define the mean over examples of a score of the predicted text, which may be that of a chosen candidate."""

    def arguments(predictions: Any, batch: dict[str, Any]) -> tuple[Tensor]:
        texts = predicted_texts(predictions, batch)
        values = [score(text, answers) for text, answers in zip(texts, batch["answers"], strict=True)]
        return (torch.tensor(values, device=batch["id"].device),)

    return MetricDefinition(lambda task: MeanMetric(), arguments)


def predicted_texts(predictions: Tensor | list[str], batch: dict[str, Any]) -> list[str]:
    """Return predictions as texts: as they are if generated, the chosen candidates otherwise."""
    if isinstance(predictions, Tensor):
        return [texts[i] for texts, i in zip(batch["candidates"], predictions.tolist(), strict=True)]
    return predictions


#: The metrics by name.
METRICS: Mapping[str, MetricDefinition] = {
    "accuracy": MetricDefinition(lambda task: MeanMetric(), _correct),
    "f1": MetricDefinition(lambda task: BinaryF1Score(), _first_label),
    "micro_f1": MetricDefinition(lambda task: MultilabelF1Score(len(task.labels), average="micro"), _all_labels),
    "macro_f1": MetricDefinition(_macro_f1, _all_labels),
    "exact_match": MetricDefinition(lambda task: MultilabelExactMatch(len(task.labels)), _all_labels),
    "mcc": MetricDefinition(lambda task: MatthewsCorrelation(len(task.labels)), _first_label),
    "entity_f1": MetricDefinition(lambda task: EntityScore(task.labels, "f1"), _tags),
    "entity_precision": MetricDefinition(lambda task: EntityScore(task.labels, "precision"), _tags),
    "entity_recall": MetricDefinition(lambda task: EntityScore(task.labels, "recall"), _tags),
    "token_accuracy": MetricDefinition(lambda task: MeanMetric(), _right_tags),
    "spearman": MetricDefinition(lambda task: SpearmanCorrCoef(), _first_label),
    "pearson": MetricDefinition(lambda task: PearsonCorrCoef(), _first_label),
    "f1a": MetricDefinition(lambda task: BinaryF1Score(), _first_label),
    "em": MetricDefinition(lambda task: QuestionExactMatch(), _correct_by_question),
    "answer_f1": _mean_score(answer_f1),
    "answer_em": _mean_score(answer_em),
    "drop_f1": _mean_score(drop_f1),
    "drop_em": _mean_score(drop_em),
    **{name: _mean_score(partial(rouge, name)) for name in ("rouge1", "rouge2", "rougeL")},
    "perplexity": MetricDefinition(lambda task: Perplexity(), _cross_entropies),
}


class TaskMetrics(nn.Module):
    """A task's metrics, updated together.

    Args:
        task: The task's record.
        prefix: Text before the metrics' names when they are logged.

    Raises:
        BeftError: If the task names none.
    """

    def __init__(self, task: TaskRecord, prefix: str) -> None:
        super().__init__()
        if not task.metrics:
            raise BeftError(
                f"task {task.name!r}: no metric for {task.kind} with {len(task.labels)} label names; choose from: "
                f"{', '.join(suitable_metrics(task.kind, len(task.labels)))}."
            )
        self.prefix = prefix
        self.metrics = nn.ModuleDict({name: METRICS[name].make(task) for name in task.metrics})

    def update(self, predictions: Any, batch: dict[str, Any]) -> None:
        """Add a batch's predictions."""
        for name, metric in self.metrics.items():
            assert isinstance(metric, Metric)
            # Looked up for each batch: the definitions cannot be pickled.
            metric.update(*METRICS[name].arguments(predictions, batch))

    def named(self) -> dict[str, Metric]:
        """Return the metrics under the names they are logged with."""
        return {f"{self.prefix}{name}": metric for name, metric in self.metrics.items() if isinstance(metric, Metric)}


def metric_prefix(stage: str, split: str) -> str:
    """Return the prefix of a split's metrics: ``val_``, or ``val_matched_`` where there are several."""
    name = "" if split in (DEV, stage) else split.removeprefix("validation").lstrip("_")
    return "_".join(filter(None, [stage, name])) + "_"
