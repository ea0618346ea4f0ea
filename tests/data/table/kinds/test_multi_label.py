"""Tables with any number of labels for each row."""

from typing import Any

import pytest
from datasets import ClassLabel, Dataset, List

from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.kinds.multi_label import MultiLabel
from beft_lightning.errors import DataError


def parsed(kind: MultiLabel, table: Dataset) -> list[Any]:
    task = kind.make_task(table)
    return task.parse(kind.rows(table, "t.json", task), "t.json")


LISTS = Dataset.from_dict({"text": ["one", "two", "three"], "y": [["long", "good"], [], ["good"]]})


def test_lists_of_names() -> None:
    kind = MultiLabel(Columns.given("text", "y"), "t.json")
    task = kind.make_task(LISTS)
    assert (task.kind, task.labels) == ("multi_label", ("good", "long"))
    assert [row["label"] for row in task.parse(kind.rows(LISTS, "t.json", task), "t")] == [[1, 1], [0, 0], [1, 0]]
    assert kind.strata(LISTS) == ["good, long", "", "good"]
    assert kind.describe(LISTS, task) == "multi_label, labels 0 = good, 1 = long, 1 for each row"


@pytest.mark.parametrize("long", [[1, 0], ["1", "0"], ["True", "False"], ["1.0", "0.0"]])
def test_columns_of_0_and_1_are_labels_in_their_order(long: list[Any]) -> None:
    table = Dataset.from_dict({"text": ["one", "two"], "long": long, "good": [True, True]})
    kind = MultiLabel(Columns.given("text", "long,good"), "t.csv")
    task = kind.make_task(table)
    assert task.labels == ("long", "good")
    assert [row["label"] for row in task.parse(kind.rows(table, "t.csv", task), "t")] == [[1, 1], [0, 1]]


def test_declared_names_keep_their_order() -> None:
    table = Dataset.from_dict({"text": ["one", "two"], "y": [[1], [0, 1]]})
    table = table.cast_column("y", List(ClassLabel(names=["z", "a", "never"])))
    kind = MultiLabel(Columns.given("text", "y"), "t.json")
    task = kind.make_task(table)
    assert task.labels == ("z", "a", "never")
    assert [row["label"] for row in task.parse(kind.rows(table, "t", task), "t")] == [[0, 1, 0], [1, 1, 0]]


@pytest.mark.parametrize(
    ("label", "columns", "message"),
    [
        ("y", {"y": [["a"], None]}, "t.json row 2: column 'y' is empty. Write an empty list"),
        ("y", {"y": ["a", "b"]}, "t.json row 1: label 'a' is no list. multi_label takes a column of lists"),
        ("y", {"y": [["a"], ["b", None]]}, "t.json row 2: column 'y' is empty"),
        ("y", {"y": [["a"], ["a"]]}, "t.json: every row has the same labels in column y"),
        ("y", {"y": [["a"], []]}, "t.json: column 'y' has one label name, 'a'.* --data.kind classification"),
        ("y", {"y": [["a"], ["b", "b"]]}, "t.json row 2: a label occurs twice"),
        ("y,z", {"y": [1, 0], "z": [0, 2]}, "t.json row 2: column 'z' holds 2, and not 0 or 1"),
        ("y,z", {"y": [1, 0], "z": [0, None]}, "t.json row 2: column 'z' is empty"),
        ("y,z", {"y": ["1", "yes"], "z": ["0", "1"]}, "t.json row 2: column 'y' holds 'yes', and not 0 or 1"),
    ],
)
def test_labels_that_cannot_be_learnt(label: str, columns: dict[str, Any], message: str) -> None:
    table = Dataset.from_dict({"text": ["one", "two"], **columns})
    kind = MultiLabel(Columns.given("text", label), "t.json")
    with pytest.raises(DataError, match=message):
        parsed(kind, table)


def test_a_label_that_the_training_rows_lack() -> None:
    kind = MultiLabel(Columns.given("text", "y"), "t.json")
    other = Dataset.from_dict({"text": ["one"], "y": [["good", "short"]]})
    with pytest.raises(DataError, match="dev.json row 1: label 'short' is not among those of t.json: good, long"):
        list(kind.rows(other, "dev.json", kind.make_task(LISTS)))
