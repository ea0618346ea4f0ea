"""What all kinds of table share: names, places and cells."""

from typing import Any

import pytest
from datasets import Dataset

from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.kinds.classification import Classification
from beft_lightning.data.table.kinds.kind import filled, missing_columns, place
from beft_lightning.errors import DataError


def test_a_task_has_the_name_of_its_training_file() -> None:
    assert Classification(Columns.given("text", "label"), "own/reviews.train.csv").task_name == "reviews.train"


def test_the_first_row_below_the_heading_is_row_1() -> None:
    assert place("dev.csv", 0) == "dev.csv row 1"


def test_the_named_cells_of_a_row_are_kept() -> None:
    row = {"text": "a", "pair": 0, "other": None}
    assert filled(row, ("pair", "text"), "row 1") == {"pair": 0, "text": "a"}


@pytest.mark.parametrize("empty", [None, "", " \n", float("nan")])
def test_an_empty_cell(empty: Any) -> None:
    with pytest.raises(DataError, match="^dev.csv row 3: column 'pair' is empty. Fill it, or remove the row.$"):
        filled({"text": "a", "pair": empty}, ("text", "pair"), "dev.csv row 3")


def test_columns_that_a_table_lacks() -> None:
    kind = Classification(Columns.given("text,pair", "label"), "train.csv")
    assert missing_columns(kind, Dataset.from_dict({"text": ["a"]})) == ["pair", "label"]
    assert missing_columns(kind, Dataset.from_dict({"label": [0], "pair": ["b"], "text": ["a"]})) == []
