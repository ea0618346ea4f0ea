"""The metrics of the tasks, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy, MulticlassF1Score, MulticlassMatthewsCorrCoef
from torchmetrics.regression import PearsonCorrCoef, SpearmanCorrCoef
from torchmetrics.utilities import dim_zero_cat

from beft_lightning.data.prompt_task import PromptTask
from beft_lightning.data.task import Task
from beft_lightning.tasks.text_metrics import answer_em, answer_f1, drop_em, drop_f1


class MatthewsCorrelation(MulticlassMatthewsCorrCoef):
    """Matthews' correlation that is 0 where it is not defined: if only one class is predicted, or occurs."""

    def compute(self) -> Tensor:
        """The correlation, a scalar."""
        counts = self.confmat
        if min((counts.sum(dim=0) > 0).sum(), (counts.sum(dim=1) > 0).sum()) < 2:
            return torch.zeros((), device=counts.device)
        return super().compute()


class QuestionExactMatch(Metric):
    """Share of questions all of whose answers were judged rightly (MultiRC's EM)."""

    correct: list[Tensor]
    question: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", default=[], dist_reduce_fx="cat")
        self.add_state("question", default=[], dist_reduce_fx="cat")

    def update(self, correct: Tensor, question: Tensor) -> None:
        """Add judgements; both of shape ``(n,)``: whether each is right, and the question it belongs to."""
        self.correct.append(correct)
        self.question.append(question)

    def compute(self) -> Tensor:
        """The share, a scalar."""
        correct, question = dim_zero_cat(self.correct), dim_zero_cat(self.question)
        questions, inverse = question.unique(return_inverse=True)
        wrong = torch.zeros(len(questions), device=correct.device).index_add(0, inverse, 1.0 - correct.float())
        return (wrong == 0).float().mean()


@dataclass(frozen=True)
class _Definition:
    """A metric, and what of predictions and batch it is updated with."""

    make: Callable[[int], Metric]
    arguments: Callable[[Any, dict[str, Any]], tuple[Any, ...]]


def _with_labels(predictions: Tensor, batch: dict[str, Any]) -> tuple[Any, ...]:
    return predictions, batch["labels"]


def _with_gold(predictions: list[int], batch: dict[str, Any]) -> tuple[Any, ...]:
    return _tensor(predictions, batch), _tensor([gold[0] for gold in batch["gold"]], batch)


def _is_right(predictions: list[int], batch: dict[str, Any]) -> tuple[Any, ...]:
    right = [float(guess in gold) for guess, gold in zip(predictions, batch["gold"], strict=True)]
    return (_tensor(right, batch),)


def _by_question(predictions: list[int], batch: dict[str, Any]) -> tuple[Any, ...]:
    return *_is_right(predictions, batch), batch["group"]


def _text_score(score: Callable[[str, list[list[str]]], float]) -> _Definition:
    """The mean over examples of a score of the predicted text, which may be that of a chosen candidate."""

    def arguments(predictions: list[Any], batch: dict[str, Any]) -> tuple[Any, ...]:
        texts = predicted_texts(predictions, batch)
        values = [score(text, answers) for text, answers in zip(texts, batch["answers"], strict=True)]
        return (_tensor(values, batch),)

    return _Definition(lambda labels: MeanMetric(), arguments)


def predicted_texts(predictions: list[Any], batch: dict[str, Any]) -> list[str]:
    """Predictions as texts: as they are if generated, the chosen candidates otherwise."""
    return [
        guess if isinstance(guess, str) else candidates[guess]
        for guess, candidates in zip(predictions, batch["candidates"], strict=True)
    ]


def _tensor(values: list[Any], batch: dict[str, Any]) -> Tensor:
    return torch.tensor(values, device=batch["id"].device)


#: Metrics of bare-text tasks, given the number of labels.
TEXT_METRICS: Mapping[str, _Definition] = {
    "accuracy": _Definition(lambda labels: MulticlassAccuracy(labels, average="micro"), _with_labels),
    "f1": _Definition(lambda labels: BinaryF1Score(), _with_labels),
    "macro_f1": _Definition(lambda labels: MulticlassF1Score(labels, average="macro"), _with_labels),
    "mcc": _Definition(lambda labels: MatthewsCorrelation(labels), _with_labels),
    "spearman": _Definition(lambda labels: SpearmanCorrCoef(), _with_labels),
    "pearson": _Definition(lambda labels: PearsonCorrCoef(), _with_labels),
}

#: Metrics of prompted tasks.
PROMPT_METRICS: Mapping[str, _Definition] = {
    "accuracy": _Definition(lambda labels: MeanMetric(), _is_right),
    "macro_f1": _Definition(lambda labels: MulticlassF1Score(labels, average="macro"), _with_gold),
    "f1a": _Definition(lambda labels: BinaryF1Score(), _with_gold),
    "em": _Definition(lambda labels: QuestionExactMatch(), _by_question),
    "answer_f1": _text_score(answer_f1),
    "answer_em": _text_score(answer_em),
    "drop_f1": _text_score(drop_f1),
    "drop_em": _text_score(drop_em),
}


class TaskMetrics(nn.Module):
    """A task's metrics, updated together.

    Args:
        task: The task's record.
        prefix: What stands before the metrics' names when they are logged.
    """

    def __init__(self, task: Task | PromptTask, prefix: str) -> None:
        super().__init__()
        registry = PROMPT_METRICS if isinstance(task, PromptTask) else TEXT_METRICS
        # Looked up by name for each batch: the definitions cannot be pickled.
        self._prompted = isinstance(task, PromptTask)
        self.prefix = prefix
        self.metrics = nn.ModuleDict({name: registry[name].make(len(task.labels)) for name in task.metrics})

    def update(self, predictions: Any, batch: dict[str, Any]) -> None:
        """Add a batch's predictions."""
        registry = PROMPT_METRICS if self._prompted else TEXT_METRICS
        for name, metric in self.metrics.items():
            assert isinstance(metric, Metric)
            metric.update(*registry[name].arguments(predictions, batch))

    def named(self) -> dict[str, Metric]:
        """The metrics under the names they are logged with."""
        return {f"{self.prefix}{name}": metric for name, metric in self.metrics.items() if isinstance(metric, Metric)}
