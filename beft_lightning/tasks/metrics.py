"""The metrics of the tasks, by name."""

import sys
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryF1Score, MulticlassF1Score, MulticlassMatthewsCorrCoef
from torchmetrics.regression import PearsonCorrCoef, SpearmanCorrCoef
from torchmetrics.utilities import dim_zero_cat

from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import BeftError
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


#: The kinds of task whose predictions are label ids.
_LABELLED = ("classification", "multiple_choice", "choice")
_ANY = range(sys.maxsize)
_SEVERAL = range(2, sys.maxsize)
#: Two, or none: options that have no names, as MultiRC's.
_BINARY = (0, 2)


@dataclass(frozen=True)
class MetricDefinition:
    """A metric by its name.

    Args:
        kinds: The kinds of task that it suits.
        label_counts: The numbers of label names that it suits.
        make: Makes the metric, given the number of labels.
        arguments: Arguments of the metric's ``update``, given a batch's predictions and the batch.
    """

    kinds: tuple[str, ...]
    label_counts: Container[int]
    make: Callable[[int], Metric]
    arguments: Callable[[Any, dict[str, Any]], tuple[Any, ...]]


def _first_label(predictions: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return predictions and labels, both of shape ``(batch,)``; of several right options the first."""
    labels = batch["labels"]
    return predictions, labels[:, 0] if labels.dim() == 2 else labels


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

    return MetricDefinition(("choice", "generation", "chat"), _ANY, lambda labels: MeanMetric(), arguments)


def predicted_texts(predictions: Tensor | list[str], batch: dict[str, Any]) -> list[str]:
    """Return predictions as texts: as they are if generated, the chosen candidates otherwise."""
    if isinstance(predictions, Tensor):
        return [texts[i] for texts, i in zip(batch["candidates"], predictions.tolist(), strict=True)]
    return predictions


#: The metrics by name.
METRICS: Mapping[str, MetricDefinition] = {
    "accuracy": MetricDefinition(_LABELLED, _ANY, lambda labels: MeanMetric(), _correct),
    "f1": MetricDefinition(_LABELLED, _BINARY, lambda labels: BinaryF1Score(), _first_label),
    "macro_f1": MetricDefinition(
        _LABELLED, _SEVERAL, lambda labels: MulticlassF1Score(labels, average="macro"), _first_label
    ),
    "mcc": MetricDefinition(_LABELLED, _SEVERAL, lambda labels: MatthewsCorrelation(labels), _first_label),
    "spearman": MetricDefinition(("regression",), _ANY, lambda labels: SpearmanCorrCoef(), _first_label),
    "pearson": MetricDefinition(("regression",), _ANY, lambda labels: PearsonCorrCoef(), _first_label),
    # MultiRC's name for F1 over all answers.
    "f1a": MetricDefinition(("choice",), _BINARY, lambda labels: BinaryF1Score(), _first_label),
    "em": MetricDefinition(("choice",), _ANY, lambda labels: QuestionExactMatch(), _correct_by_question),
    "answer_f1": _mean_score(answer_f1),
    "answer_em": _mean_score(answer_em),
    "drop_f1": _mean_score(drop_f1),
    "drop_em": _mean_score(drop_em),
    **{name: _mean_score(partial(rouge, name)) for name in ("rouge1", "rouge2", "rougeL")},
    "perplexity": MetricDefinition(("text",), _ANY, lambda labels: Perplexity(), _cross_entropies),
}


class TaskMetrics(nn.Module):
    """A task's metrics, updated together.

    Args:
        task: The task's record.
        prefix: Text before the metrics' names when they are logged.

    Raises:
        BeftError: If the task names a metric that does not exist or does not suit its kind.
    """

    def __init__(self, task: TaskRecord, prefix: str) -> None:
        super().__init__()
        check_metrics(task)
        self.prefix = prefix
        self.metrics = nn.ModuleDict({name: METRICS[name].make(len(task.labels)) for name in task.metrics})

    def update(self, predictions: Any, batch: dict[str, Any]) -> None:
        """Add a batch's predictions."""
        for name, metric in self.metrics.items():
            assert isinstance(metric, Metric)
            # Looked up for each batch: the definitions cannot be pickled.
            metric.update(*METRICS[name].arguments(predictions, batch))

    def named(self) -> dict[str, Metric]:
        """Return the metrics under the names they are logged with."""
        return {f"{self.prefix}{name}": metric for name, metric in self.metrics.items() if isinstance(metric, Metric)}


def check_metrics(task: TaskRecord) -> None:
    """Check that a task names at least one metric, and only such as suit its kind.

    Raises:
        BeftError: If it does not.
    """
    valid = [
        name
        for name, definition in METRICS.items()
        if task.kind in definition.kinds and len(task.labels) in definition.label_counts
    ]
    unknown = [name for name in task.metrics if name not in valid]
    if unknown or not task.metrics:
        wrong = f"no metric {unknown[0]!r}" if unknown else "no metric"
        raise BeftError(
            f"task {task.name!r}: {wrong} for {task.kind} with {len(task.labels)} label names; choose from: "
            f"{', '.join(valid)}."
        )
