"""Tables with a tag for each word."""

from typing import Any

import pytest
from datasets import ClassLabel, Dataset, List

from beft_lightning.data.table.columns import Columns
from beft_lightning.data.table.kinds.token_classification import TokenClassification
from beft_lightning.errors import DataError

KIND = TokenClassification(Columns.given("tokens", "tags"), "t.conll")
COLUMNS: dict[str, Any] = {"tokens": [["Ada", "wrote"], ["it"]], "tags": [["B-PER", "O"], ["O"]]}
TABLE = Dataset.from_dict(COLUMNS)


def parsed(table: Dataset) -> list[Any]:
    task = KIND.make_task(table)
    return task.parse(KIND.rows(table, "t.conll", task), "t.conll")


def test_tags_are_names_or_those_that_are_declared() -> None:
    named = TABLE.cast_column("tags", List(ClassLabel(names=["O", "B-PER", "I-PER"])))
    for table, names in ((TABLE, ("B-PER", "O")), (named, ("O", "B-PER", "I-PER"))):
        task = KIND.make_task(table)
        assert (task.kind, task.labels, task.metrics[0]) == ("token_classification", names, "entity_f1")
        first, second = task.parse(KIND.rows(table, "t", task), "t")
        assert [[task.labels[tag] for tag in row["label"]] for row in (first, second)] == [["B-PER", "O"], ["O"]]
        assert first["tokens"] == ["Ada", "wrote"]
    assert KIND.describe(TABLE, KIND.make_task(TABLE)) == "token_classification, 3 words, labels 0 = B-PER, 1 = O"


@pytest.mark.parametrize("tags", [[["NOUN", "VERB"], ["PRON"]], [["B-X", "VERB"], ["O"]], [[0, 1], [1]]])
def test_tags_that_mark_no_entities_are_counted_one_by_one(tags: Any) -> None:
    assert KIND.make_task(Dataset.from_dict(COLUMNS | {"tags": tags})).metrics == ("token_accuracy",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tags": [["O", "B-X"], ["O", "O"]]}, "t.conll row 2: 1 words and 2 tags: each word has one tag"),
        ({"tags": [["O", "O"], ["O"]]}, "t.conll: every word has the tag 'O' in column 'tags'"),
        ({"tags": [["O", "B-X"], []]}, r"t.conll row 2: column 'tags' holds \[\], and no list of tags"),
        ({"tags": ["O", "B-X"]}, "t.conll row 1: column 'tags' holds 'O', and no list of tags. Lists come from JSON"),
        ({"tags": [["O", "B-X"], [None]]}, "t.conll row 2: column 'tags' is empty"),
        ({"tokens": ["Ada wrote", "it"]}, "t.conll row 1: column 'tokens' is no list of texts but 'Ada wrote'"),
        ({"tokens": [["Ada", "wrote"], [""]]}, "t.conll row 2: column 'tokens' lists '', which is no text"),
        ({"tokens": [["Ada", "wrote"], None]}, "t.conll row 2: column 'tokens' is empty"),
    ],
)
def test_words_and_tags_that_cannot_be_learnt(change: dict[str, Any], message: str) -> None:
    table = Dataset.from_dict(COLUMNS | change)
    with pytest.raises(DataError, match=message):
        parsed(table)
