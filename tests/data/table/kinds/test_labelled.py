"""Tables with one label in each row."""

from typing import Any

import pytest
from datasets import Dataset

from beft_lightning.data.sources import Row
from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.kinds.labelled import LabelledKind
from beft_lightning.data.task import Task, TaskRecord
from beft_lightning.errors import DataError


class Doubled(LabelledKind):
    """Reads each number twice as large."""

    name = "doubled"

    def matches(self, table: Dataset) -> bool:
        return True

    def make_task(self, table: Dataset) -> TaskRecord:
        return Task(name=self.task_name, kind="regression", text=self.inputs, metrics=("pearson",))

    def known_label(self, label: Any, row: Row, task: TaskRecord, where: str) -> Any:
        if label < 0:
            raise DataError(f"{where}: {label} is negative.")
        return 2 * label

    def strata(self, table: Dataset) -> list[str]:
        return []

    def describe(self, table: Dataset, task: TaskRecord) -> str:
        return ""


def rows(table: dict[str, list[Any]], columns: Columns) -> list[Any]:
    kind, content = Doubled(columns, "t.csv"), Dataset.from_dict(table)
    return list(kind.rows(content, "dev.csv", kind.make_task(content)))


def test_rows_hold_their_inputs_and_the_label_that_the_kind_knows() -> None:
    columns = Columns.given("text", "y")
    assert Doubled(columns, "t.csv").needed == ("text", "y")
    assert rows({"text": ["a", "b"], "y": [1, 2], "more": [None, ""]}, columns) == [
        ("dev.csv row 1", {"text": "a", "label": 2}),
        ("dev.csv row 2", {"text": "b", "label": 4}),
    ]


def test_the_columns_of_a_prompt_are_the_inputs() -> None:
    columns = Columns.given("text", "y", prompt="{film} by {author}")
    assert Doubled(columns, "t.csv").needed == ("film", "author", "y")
    assert rows({"film": ["a"], "author": ["b"], "y": [1]}, columns) == [
        ("dev.csv row 1", {"film": "a", "author": "b", "label": 2})
    ]


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a", " "], [1, 2], "dev.csv row 2: column 'text' is empty"),
        (["a", "b"], [1, None], "dev.csv row 2: column 'y' is empty"),
        (["a", "b"], [1, -2], "dev.csv row 2: -2 is negative"),
    ],
)
def test_a_row_that_cannot_be_learnt(texts: list[str], labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows({"text": texts, "y": labels}, Columns.given("text", "y"))


def test_one_column_of_labels_and_none_of_options() -> None:
    assert Doubled(Columns.given("text", "y"), "t.csv").fits()
    assert not Doubled(Columns.given("text", "y", "a,b"), "t.csv").fits()
    several = Doubled(Columns.given("text", "y,z"), "t.csv")
    assert not several.fits()
    with pytest.raises(DataError, match="--data.label y,z: doubled has one column of labels"):
        _ = several.needed
