"""Tables with a class for each row."""

from typing import Any

from datasets import Dataset

from beft_lightning.data.prompt_task import PromptTask, separator
from beft_lightning.data.sources import Row
from beft_lightning.data.table.kinds.labelled import LabelledKind
from beft_lightning.data.table.labels import (
    are_scores,
    check_names,
    class_names,
    describe_names,
    has_lists,
    infer_names,
    known_name,
    label_name,
    raw_labels,
)
from beft_lightning.data.task import Task, TaskRecord
from beft_lightning.data.verbalizer import Verbalizer


class Classification(LabelledKind):
    """One class for the texts of each row, or behind a prompt one label name of several."""

    name = "classification"
    takes = ("prompt",)

    def matches(self, table: Dataset) -> bool:
        """Return whether labels are no lists, and no numbers one of which has a fraction."""
        return not has_lists(table, self.label) and not are_scores(raw_labels(table, self.label))

    def make_task(self, table: Dataset) -> TaskRecord:
        """Make a record with the label names: those that the table declares, or those that occur."""
        values = self.labels(table, self.train)
        names = class_names(table, self.label) or infer_names(values)
        check_names(names, values, self.label, self.train)
        if self.columns.prompt is not None:
            return self._prompted(self.columns.prompt, names)
        return Task(
            name=self.task_name,
            kind="classification",
            text=self.columns.inputs,
            labels=names,
            metrics=("accuracy", "macro_f1"),
        )

    def _prompted(self, prompt: str, names: tuple[str, ...]) -> PromptTask:
        """Return the record of a choice between the label names behind a prompt."""
        space = separator(prompt)
        return PromptTask(
            name=self.task_name,
            kind="choice",
            columns=(*self.columns.inputs, "label"),
            text=self.columns.inputs,
            examples=Verbalizer(prompt, tuple(f"{space}{name}" for name in names), names),
            labels=names,
        )

    def known_label(self, label: Any, row: Row, task: TaskRecord, where: str) -> str:
        """Return the label's name."""
        return known_name(label, task.labels, self.train, where)

    def strata(self, table: Dataset) -> list[str]:
        """Return the label of each row."""
        return [label_name(value) for value in raw_labels(table, self.label)]

    def describe(self, table: Dataset, task: TaskRecord) -> str:
        """Return the label names with their ids."""
        return f"{task.kind}, {describe_names(task.labels)}"
