"""Tables with texts, or a prompt, and one label in each row."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from datasets import Dataset

from beft_lightning.data.sources import Located, Row
from beft_lightning.data.table.kinds.kind import TableKind, filled, place
from beft_lightning.data.table.labels import check_types, raw_labels
from beft_lightning.data.task import TaskRecord
from beft_lightning.errors import DataError


class LabelledKind(TableKind):
    """One label for the texts, or the prompt, of each row."""

    @property
    def label(self) -> str:
        """The column of the label.

        Raises:
            DataError: If several were given.
        """
        if len(self.columns.label) > 1:
            raise DataError(f"--data.label {','.join(self.columns.label)}: {self.name} has one column of labels.")
        return self.columns.label[0]

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns of the input."""
        return self.columns.inputs

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns of the input, and the label's."""
        return (*self.inputs, self.label)

    def fits(self) -> bool:
        """Return whether there is one column of labels, and the kind has a use for all options."""
        return super().fits() and len(self.columns.label) == 1

    def labels(self, table: Dataset, source: str) -> list[Any]:
        """Return the raw labels of a table, all of one type.

        Raises:
            DataError: If one is missing, or of another type.
        """
        values = raw_labels(table, self.label)
        check_types(values, self.label, lambda index: place(source, index))
        return values

    def rows(self, table: Dataset, source: str, task: TaskRecord) -> Iterator[Located]:
        """Yield texts that are not empty, and labels of the task."""
        for index, (row, label) in enumerate(zip(table, self.labels(table, source), strict=True)):
            where = place(source, index)
            yield where, {**filled(row, self.inputs, where), "label": self.known_label(label, row, task, where)}

    @abstractmethod
    def known_label(self, label: Any, row: Row, task: TaskRecord, where: str) -> Any:
        """Return the raw label of a row as the task reads it.

        Raises:
            DataError: If it is none of the task's.
        """
