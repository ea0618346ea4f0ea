"""Tables with a tag for each word of each row."""

from typing import Any

from datasets import Dataset

from beft_lightning.data.sources import Row
from beft_lightning.data.table.kinds.kind import place
from beft_lightning.data.table.kinds.labelled import LabelledKind
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

#: Metrics of tags of entities, and of other tags, such as parts of speech.
_ENTITIES = ("entity_f1", "entity_precision", "entity_recall", "token_accuracy")
_OTHERS = ("token_accuracy",)


class TokenClassification(LabelledKind):
    """A tag for each word: a column of lists of words, and one of lists of tags."""

    name = "token_classification"

    def matches(self, table: Dataset) -> bool:
        """Return whether both columns hold lists."""
        return has_lists(table, self.label) and has_lists(table, self.columns.inputs[0])

    def make_task(self, table: Dataset) -> TaskRecord:
        """Make a record with the tags: those that the table declares, or those that occur."""
        tags = [tag for of_row in self.labels(table, self.train) for tag in of_row]
        names = class_names(table, self.label) or infer_names(tags)
        if len(set(map(label_name, tags))) < 2:
            raise DataError(
                f"{self.train}: every word has the tag {label_name(tags[0])!r} in column {self.label!r}: there is "
                "nothing to tell apart. Give rows of at least two tags, or another column."
            )
        return Task(
            name=self.task_name,
            kind="token_classification",
            text=self.columns.inputs,
            labels=names,
            metrics=_ENTITIES if _mark_entities(names) else _OTHERS,
        )

    def labels(self, table: Dataset, source: str) -> list[list[Any]]:
        """Return the tags of each row of a table.

        Raises:
            DataError: If a cell is no list, or an empty one, or the tags are of several types.
        """
        values = raw_labels(table, self.label)
        for index, value in enumerate(values):
            if not isinstance(value, list) or not value:
                raise DataError(
                    f"{place(source, index)}: column {self.label!r} holds {value!r}, and no list of tags. Lists come "
                    "from JSON, Parquet or .conll files."
                )
        places = [place(source, index) for index, value in enumerate(values) for _ in value]
        check_types([tag for value in values for tag in value], self.label, places.__getitem__)
        return values

    def known_label(self, label: Any, row: Row, task: TaskRecord, where: str) -> list[str]:
        """Return the names of a row's tags."""
        return [known_name(tag, task.labels, self.train, where) for tag in label]

    def describe(self, table: Dataset, task: TaskRecord) -> str:
        """Return the tags with their ids, and the number of words."""
        words = sum(map(len, table[self.label]))
        return f"{task.kind}, {words:,} words, {describe_names(task.labels)}"


def _mark_entities(tags: tuple[str, ...]) -> bool:
    """Return whether tags are those of IOB2 or IOBES: each is ``O`` or begins with B, I, E or S and a hyphen."""
    prefixes = [tag.partition("-")[0] if "-" in tag else "" for tag in tags if tag != "O"]
    return bool(prefixes) and all(prefix in ("B", "I", "E", "S") for prefix in prefixes)
