"""The metrics of the tasks, by name."""

from collections.abc import Callable, Mapping

from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy, MulticlassF1Score, MulticlassMatthewsCorrCoef
from torchmetrics.regression import PearsonCorrCoef, SpearmanCorrCoef

from beft_lightning.data.task import Task

#: Metric name -> what makes it, given the number of labels.
METRICS: Mapping[str, Callable[[int], Metric]] = {
    "accuracy": lambda labels: MulticlassAccuracy(labels, average="micro"),
    "f1": lambda labels: BinaryF1Score(),
    "macro_f1": lambda labels: MulticlassF1Score(labels, average="macro"),
    "mcc": lambda labels: MulticlassMatthewsCorrCoef(labels),
    "spearman": lambda labels: SpearmanCorrCoef(),
    "pearson": lambda labels: PearsonCorrCoef(),
}


def task_metrics(task: Task, prefix: str) -> MetricCollection:
    """The task's metrics, logged as ``<prefix><metric>``; they take predictions (label ids or scores) and targets."""
    metrics = {name: METRICS[name](len(task.labels)) for name in task.metrics}
    return MetricCollection(dict(metrics), prefix=prefix, compute_groups=False)
