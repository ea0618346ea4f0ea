"""Tables with a score for each row."""

from typing import Any

from datasets import Dataset

from beft_lightning.data.labels import score
from beft_lightning.data.sources import Row
from beft_lightning.data.table.kinds.labelled import LabelledKind
from beft_lightning.data.table.labels import are_scores, raw_labels
from beft_lightning.data.task import Task, TaskRecord
from beft_lightning.errors import DataError


class Regression(LabelledKind):
    """A score for the texts of each row."""

    name = "regression"
    #: Refused with the reason, once the labels are known to be scores.
    takes = ("prompt",)

    def matches(self, table: Dataset) -> bool:
        """Return whether labels are numbers, and any has a fraction."""
        return are_scores(raw_labels(table, self.label))

    def make_task(self, table: Dataset) -> TaskRecord:
        """Make a record without label names."""
        self.labels(table, self.train)
        if self.columns.prompt is not None:
            raise DataError(f"{self.train}: a prompt has label names as options, and column {self.label!r} has scores.")
        return Task(name=self.task_name, kind="regression", text=self.columns.inputs, metrics=("pearson", "spearman"))

    def known_label(self, label: Any, row: Row, task: TaskRecord, where: str) -> Any:
        """Return the label as it is; the task reads it as a number."""
        return label

    def describe(self, table: Dataset, task: TaskRecord) -> str:
        """Return the range of the scores."""
        scores = [score(value) for value in raw_labels(table, self.label)]
        return f"regression, scores from {min(scores):g} to {max(scores):g}"
