"""Tables with a score for each row."""

import pytest
from datasets import Dataset

from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.kinds.regression import Regression
from beft_lightning.errors import DataError

TABLE = Dataset.from_dict({"text": ["one", "two"], "y": [0.5, 3.0]})


def test_scores_have_no_names_and_one_stratum() -> None:
    kind = Regression(Columns.given("text", "y"), "t.json")
    task = kind.make_task(TABLE)
    assert (task.labels, task.metrics, kind.strata(TABLE)) == ((), ("pearson", "spearman"), ["", ""])
    assert kind.describe(TABLE, task) == "regression, scores from 0.5 to 3"


def test_scores_are_no_options_of_a_prompt() -> None:
    with pytest.raises(DataError, match="a prompt has label names as options, and column 'y' has scores"):
        Regression(Columns.given("text", "y", prompt="{text}"), "t.json").make_task(TABLE)
