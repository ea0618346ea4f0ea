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
