"""Tables with a class for each row."""

import pytest
from datasets import Dataset

from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.kinds.classification import Classification
from beft_lightning.errors import DataError

TABLE = Dataset.from_dict({"text": ["one", "two", "three"], "y": [True, False, True]})


def test_labels_are_named_and_stratified() -> None:
    kind = Classification(Columns.given("text", "y"), "own/t.json")
    task = kind.make_task(TABLE)
    assert (task.name, task.labels, task.metrics) == ("t", ("false", "true"), ("accuracy", "macro_f1"))
    assert [row["label"] for _, row in kind.rows(TABLE, "t.json", task)] == ["true", "false", "true"]
    assert kind.strata(TABLE) == ["true", "false", "true"]
    assert kind.describe(TABLE, task) == "classification, labels 0 = false, 1 = true"


def test_a_label_that_the_training_rows_lack() -> None:
    kind = Classification(Columns.given("text", "y"), "t.json")
    other = Dataset.from_dict({"text": ["one", "two"], "y": ["true", "maybe"]})
    with pytest.raises(DataError, match="dev.json row 2: label 'maybe' is not among those of t.json: false, true"):
        list(kind.rows(other, "dev.json", kind.make_task(TABLE)))


def test_a_cell_of_a_prompt_is_a_text() -> None:
    kind = Classification(Columns.given("text", "y", prompt="{year}: {text}"), "t.json")
    table = TABLE.add_column("year", [1990, 1991, 1992])
    task = kind.make_task(table)
    with pytest.raises(DataError, match="t.json row 1: column 'year' is no text but 1990"):
        task.parse(kind.rows(table, "t.json", task), "t.json")
