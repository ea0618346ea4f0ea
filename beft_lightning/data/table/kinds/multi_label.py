"""Tables with any number of labels for each row."""

from collections.abc import Iterator
from typing import Any

from datasets import Dataset

from beft_lightning.data.sources import Located, is_empty
from beft_lightning.data.table.kinds.kind import TableKind, filled, place
from beft_lightning.data.table.labels import (
    check_types,
    class_names,
    describe_names,
    has_lists,
    infer_names,
    known_name,
    label_name,
    raw_labels,
)
from beft_lightning.data.task import Task, TaskRecord
from beft_lightning.errors import DataError

#: Cell of a column of its own for a label, in small letters -> whether the label holds. Cells of CSV files are texts.
_MARKS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


class MultiLabel(TableKind):
    """Any number of labels for the texts of each row: a column of lists, or a column of 0 and 1 for each label."""

    name = "multi_label"

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns of text and labels."""
        return (*self.columns.inputs, *self.columns.label)

    def matches(self, table: Dataset) -> bool:
        """Return whether there are several columns of labels, or one of lists beside a text that is no list."""
        lists = [has_lists(table, name) for name in (self.columns.label[0], self.columns.inputs[0])]
        return len(self.columns.label) > 1 or lists == [True, False]

    def make_task(self, table: Dataset) -> TaskRecord:
        """Make a record with the label names: of the columns, those that the table declares, or those that occur."""
        labels = self.labels(table, self.train)
        if len({frozenset(of_row) for of_row in labels}) < 2:
            raise DataError(
                f"{self.train}: every row has the same labels in column {', '.join(self.columns.label)}: there is "
                "nothing to tell apart. Give rows of different labels, or another column."
            )
        names = self._names(table, labels)
        if len(names) == 1:
            raise DataError(
                f"{self.train}: column {self.columns.label[0]!r} has one label name, {names[0]!r}: write 1 where it "
                "holds and 0 where it does not, and give --data.kind classification."
            )
        return Task(
            name=self.task_name,
            kind="multi_label",
            text=self.columns.inputs,
            labels=names,
            metrics=("micro_f1", "macro_f1", "exact_match"),
        )

    def _names(self, table: Dataset, labels: list[list[Any]]) -> tuple[str, ...]:
        if len(self.columns.label) > 1:
            return self.columns.label
        occurring = [label for of_row in labels for label in of_row]
        return class_names(table, self.columns.label[0]) or infer_names(occurring)

    def labels(self, table: Dataset, source: str) -> list[list[Any]]:
        """Return the labels of each row of a table.

        Raises:
            DataError: If a cell is empty, no list, or neither 0 nor 1.
        """
        if len(self.columns.label) > 1:
            return [self._marked(row, place(source, index)) for index, row in enumerate(self._label_rows(table))]
        (column,) = self.columns.label
        values = raw_labels(table, column)
        for index, value in enumerate(values):
            if is_empty(value):
                raise DataError(
                    f"{place(source, index)}: column {column!r} is empty. Write an empty list where no label holds."
                )
            if not isinstance(value, list):
                raise DataError(
                    f"{place(source, index)}: label {value!r} is no list. {self.name} takes a column of lists, from "
                    "JSON or Parquet, or with --data.label a,b,c a column of 0 and 1 for each label."
                )
        places = [place(source, index) for index, value in enumerate(values) for _ in value]
        check_types([label for value in values for label in value], column, places.__getitem__)
        return values

    def _label_rows(self, table: Dataset) -> list[dict[str, Any]]:
        return table.select_columns(list(self.columns.label)).to_list()

    def _marked(self, row: dict[str, Any], where: str) -> list[str]:
        """Return the names of the columns that hold 1."""
        cells = filled(row, self.columns.label, where)
        marks = {name: _MARKS.get(label_name(value).lower()) for name, value in cells.items()}
        if wrong := [name for name, mark in marks.items() if mark is None]:
            raise DataError(f"{where}: column {wrong[0]!r} holds {cells[wrong[0]]!r}, and not 0 or 1.")
        return [name for name, mark in marks.items() if mark]

    def rows(self, table: Dataset, source: str, task: TaskRecord) -> Iterator[Located]:
        """Yield texts that are not empty, and lists of labels of the task."""
        for index, (row, labels) in enumerate(zip(table, self.labels(table, source), strict=True)):
            where = place(source, index)
            names = [known_name(label, task.labels, self.train, where) for label in labels]
            yield where, {**filled(row, self.columns.inputs, where), "label": names}

    def strata(self, table: Dataset) -> list[str]:
        """Return the labels of each row together."""
        return [", ".join(sorted(map(label_name, labels))) for labels in self.labels(table, self.train)]

    def describe(self, table: Dataset, task: TaskRecord) -> str:
        """Return the label names with their ids, and how many labels a row has."""
        each = sum(map(len, self.labels(table, self.train))) / len(table)
        return f"{task.kind}, {describe_names(task.labels)}, {each:.2g} for each row"
