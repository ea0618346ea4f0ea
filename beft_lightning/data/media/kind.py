"""Tables with an image or a sound, and one label, in each row."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from beft_lightning.data.media.task import MediaTask, located
from beft_lightning.data.sources import Located
from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.kinds.classification import Classification
from beft_lightning.data.table.labels import are_scores, check_names, class_names, infer_names
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError


class MediaKind(Classification):
    """One class for the image or the sound of each row.

    Args:
        columns: The options that name the table's columns.
        train: Name of the table of the training rows.
        record: The class of the task's record.
    """

    def __init__(self, columns: Columns, train: str, record: type[MediaTask]) -> None:
        super().__init__(columns, train)
        self.record = record
        self.options = f"--data.{record.media} and --data.label"

    def make_task(self, table: Dataset, **fields: Any) -> MediaTask:
        """Make a record with the label names: those that the table declares, or those that occur.

        Args:
            table: The training rows.
            fields: Further fields of the record.
        """
        values = self.labels(table, self.train)
        if are_scores(values):
            raise DataError(
                f"{self.train}: column {self.label!r} holds numbers with a fraction, and labels of images and "
                "sounds are classes: give texts, truth values or whole numbers."
            )
        names = class_names(table, self.label) or infer_names(values)
        check_names(names, values, self.label, self.train)
        return self.record(
            name=self.task_name, column=self.inputs[0], labels=names, metrics=("accuracy", "macro_f1"), **fields
        )

    def rows(self, table: Dataset, source: str, task: TaskRecord) -> Iterator[Located]:
        """Yield rows whose paths start from the folder of their source."""
        folder = Path(source) if Path(source).is_dir() else Path(source).parent
        for where, row in super().rows(table, source, task):
            yield where, {**row, self.inputs[0]: located(row[self.inputs[0]], folder)}
